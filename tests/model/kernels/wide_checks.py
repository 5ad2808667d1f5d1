"""The scan of wide heads, for training, against the rule: outputs, last state, gradients of everything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product

import torch
from torch import Tensor

from spatial_ttt.model.configuration import TTTConfig, paper_ttt_config
from tests.model.kernels.check import Check, Function

AS_NEAR = 1.6
"""The kernels may be this many times as far from the exact rule as the plain one in half precision."""


def wide_scan(device: torch.device) -> Iterator[Check]:
    """Rules over a few chunks with an odd end; then pieces that carry the state across borders."""
    if device.type == "cuda":
        yield from _in_half_precision(device)
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
    rule = paper_ttt_config(chunk_size=40, newton_schulz_dtype="float32")
    inputs = _inputs((1, 1, 79, 48), device)
    fast, plain = (_scan(rule, how, (79,)) for how in ("triton", "reference"))
    yield Check("48 channels", fast, plain, inputs, 5e-4)


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
            *given: Tensor, how: str, rule: TTTConfig = rule, momentum: Tensor = momentum
        ) -> tuple[Tensor, ...]:
            found = _scan(rule, how, (given[0].shape[2],))(*given[:4], momentum, *given[4:])
            assert isinstance(found, tuple)
            return found

        fast, plain = partial(scan, how="triton"), partial(scan, how="reference")
        limit = AS_NEAR * _noise(plain, inputs)
        yield Check(f"{batch} x {size} {placement}", fast, plain, inputs, limit)


def _noise(plain: Function, inputs: Sequence[Tensor]) -> float:
    """How far the plain rule in half precision is from the exact one, outputs and gradients."""
    from tests.model.kernels.checks import _error, _results

    wanted, upstream = _results(plain, [x.double() for x in inputs], None)
    got, _ = _results(plain, inputs, upstream)
    return max(_error(a, b) for a, b in zip(got, wanted, strict=True))


def _inputs(shape: tuple[int, int, int, int], device: torch.device) -> list[Tensor]:
    from tests.model.kernels.checks import scan_inputs

    return scan_inputs(shape, device)


def _scan(rule: TTTConfig, backend: str, borders: tuple[int, ...]) -> Function:
    from tests.model.kernels.checks import scan_by_pieces

    return scan_by_pieces(rule, backend, borders, lone_writes=False)
