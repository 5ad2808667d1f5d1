"""The scan of wide heads, for training, against the rule: outputs, last state, gradients of everything.

With Newton-Schulz's steps kept it is held against itself without, too, and more tightly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from spatial_ttt.model.configuration import TTTConfig, paper_ttt_config
from spatial_ttt.model.kernels import interpreting
from tests.model.kernels.check import Check, Function

AS_NEAR = 1.6
"""The kernels may be this many times as far from the exact rule as the plain one in half precision."""
AS_ONE = 0.25
"""With steps kept they may be this many times as far from themselves without: sums in another order, then rounded."""


def wide_scan(device: torch.device) -> Iterator[Check]:
    """Rules over a few chunks with an odd end; then pieces that carry the state across borders."""
    if device.type == "cuda":
        yield from _in_half_precision(device)
        return
    if not interpreting():
        yield from _to_compile(device)
        return
    whole = [(True, True, "post"), (True, False, "pre")]  # Muon is slow here
    pieces = [(False, *rest) for rest in product((True, False), ("post", "pre"))]
    for muon, momentum, placement in whole + pieces:
        rule = paper_ttt_config(
            use_muon=muon,
            use_momentum=momentum,
            norm_placement=placement,
            chunk_size=21,
            newton_schulz_dtype="float32",
        )
        limit = 2e-4 if muon else 5e-6
        borders = (65,) if muon else (42, 86)
        inputs = _inputs((2, 2, borders[-1], 16), device)
        name = f"muon {muon} momentum {momentum} {placement} {borders}"
        fast, plain = (_scan(rule, how, borders) for how in ("triton", "reference"))
        yield Check(name, fast, plain, inputs, limit)
        if muon and momentum:
            kept = _scan(rule, "triton", borders, keeps=True)
            yield Check(f"{name} kept as one", kept, _as_given(fast, inputs), inputs, 1e-5)
    rule = paper_ttt_config(chunk_size=40, newton_schulz_dtype="float32")
    inputs = _inputs((1, 1, 79, 48), device)
    fast, plain = (_scan(rule, how, (79,)) for how in ("triton", "reference"))
    again = _made_again(_scan(rule, "triton", (79,), keeps=True))
    yield Check("48 channels", fast, plain, inputs, 5e-4)
    yield Check("48 channels kept and made again", again, plain, inputs, 5e-4)


def _in_half_precision(device: torch.device) -> Iterator[Check]:
    for (batch, size, chunk), placement in product(
        ((1, 128, 200), (2, 256, 300), (1, 512, 700)), ("post", "pre")
    ):
        rule = paper_ttt_config(norm_placement=placement, chunk_size=chunk)
        length = 3 * chunk + 5
        inputs = _inputs((batch, 2, length, size), device)
        inputs = [x.to(torch.bfloat16) for x in inputs[:3]] + inputs[3:]
        momentum = inputs.pop(4)  # whose gradient is a few sums, here of noise

        def scan(
            *given: Tensor,
            how: str,
            keeps: bool = False,
            rule: TTTConfig = rule,
            momentum: Tensor = momentum,
        ) -> tuple[Tensor, ...]:
            run = _scan(rule, how, (given[0].shape[2],), keeps=keeps)
            found = run(*given[:4], momentum, *given[4:])
            assert isinstance(found, tuple)
            return found

        fast, plain = partial(scan, how="triton"), partial(scan, how="reference")
        kept = partial(scan, how="triton", keeps=True)
        noise = _noise(plain, inputs)
        name, near = f"{batch} x {size} {placement}", AS_NEAR * noise
        yield Check(name, fast, plain, inputs, near)
        yield Check(f"{name} kept", kept, plain, inputs, near)
        yield Check(f"{name} kept and made again", _made_again(kept), plain, inputs, near)
        itself = _as_given(fast, inputs)
        yield Check(f"{name} kept as one", kept, itself, inputs, AS_ONE * noise)


def _to_compile(device: torch.device) -> Iterator[Check]:
    """One head as wide as the 2B model's in half precision, with and without steps kept; nobody reads the numbers."""
    for placement, keeps in product(("post", "pre"), (False, True)):
        rule = paper_ttt_config(norm_placement=placement, chunk_size=40)
        inputs = _inputs((1, 1, 100, 512), device)
        inputs = [x.to(torch.bfloat16) for x in inputs[:3]] + inputs[3:]
        fast = _scan(rule, "triton", (100,), keeps=keeps)
        yield Check(f"{placement} {keeps}", fast, fast, inputs, 0.0)


def _noise(plain: Function, inputs: Sequence[Tensor]) -> float:
    """How far the plain rule in half precision is from the exact one, outputs and gradients."""
    from tests.model.kernels.checks import _error, _results

    wanted, upstream = _results(plain, [x.double() for x in inputs], None)
    got, _ = _results(plain, inputs, upstream)
    return max(_error(a, b) for a, b in zip(got, wanted, strict=True))


def _as_given(function: Function, inputs: Sequence[Tensor]) -> Function:
    """The function in the inputs' own precision, whatever it is given."""

    def run(*given: Tensor) -> Tensor | tuple[Tensor, ...]:
        return function(*(x.to(like.dtype) for x, like in zip(given, inputs, strict=True)))

    return run


def _made_again(function: Function) -> Function:
    """The function as part of a layer whose activations are made again in the backward pass."""

    def run(*given: Tensor) -> Any:
        return checkpoint(function, *given, use_reentrant=False)

    return run


def _inputs(shape: tuple[int, int, int, int], device: torch.device) -> list[Tensor]:
    from tests.model.kernels.checks import scan_inputs

    return scan_inputs(shape, device)


def _scan(
    rule: TTTConfig, backend: str, borders: tuple[int, ...], *, keeps: bool = False
) -> Function:
    from tests.model.kernels.checks import scan_by_pieces

    how = {"lone_writes": False, "keep_newton_schulz": keeps}
    return scan_by_pieces(rule, backend, borders, **how)
