"""Every kernel against its plain version in float64, outputs and gradients, fresh memory filled with NaN.

    python -m tests.model.kernels.checks scan mixing     # in Triton's interpreter, on the CPU; a line of JSON each

GPU tests call `run` in their own process.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.model.kernels.answer_checks import answer
from tests.model.kernels.attention_checks import attention
from tests.model.kernels.blocks_checks import blocks
from tests.model.kernels.check import Check, Function, each_way
from tests.model.kernels.commit_checks import commit
from tests.model.kernels.layer_checks import decoder, patching, runs, steady, streaming, tower
from tests.model.kernels.merging_checks import merging
from tests.model.kernels.shaping_checks import heads, shaping, trained_heads, trained_rates
from tests.model.kernels.together import tell_each
from tests.model.kernels.tower_attention_checks import tower_attention
from tests.model.kernels.whole_checks import packed, whole_convolution
from tests.model.kernels.wide_checks import wide_scan


def newton_schulz(device: torch.device) -> Iterator[Check]:
    """Both precisions at the sizes the kernel takes, one matrix tiny and one zero."""
    from spatial_ttt.model.kernels import newton_schulz as kernel
    from spatial_ttt.model.newton_schulz import plain_newton_schulz

    sizes = (32,) if device.type == "cpu" else kernel.TRITON_SIZES
    for size, (work, limit) in product(sizes, ((torch.float32, 1e-4), (torch.bfloat16, 0.15))):
        if kernel.triton_problem(torch.empty(size, size), work):
            continue
        matrices = torch.randn(3, size, size, device=device)
        matrices[1] *= 1e-6
        yield Check(
            f"{size} {work}",
            lambda m, work=work: kernel.newton_schulz(m, work, "triton"),
            lambda m: plain_newton_schulz(m, "float32"),
            (matrices,),
            limit,
        )


def convolution(device: torch.device) -> Iterator[Check]:
    """Odd sizes down to one pixel and one frame, and slots with strides of their own."""
    from spatial_ttt.model.convolution import plain_convolve_slots
    from spatial_ttt.model.kernels.convolution import convolve_slots

    shapes = [(2, 1, 1, 1, 16), (1, 9, 2, 3, 48), (2, 2, 5, 7, 80), (1, 2, 6, 1, 130)]
    if device.type == "cuda":
        shapes += [(3, 5, 11, 15, 272), (2, 4, 22, 30, 64), (1, 66, 11, 15, 512)]
    kinds = ((torch.float32, 1e-6), (torch.bfloat16, 6e-3))
    for shape, (dtype, limit) in each_way(shapes, kinds, device):
        batch, frames, height, width, channels = shape
        wide = torch.randn(batch, height, frames + 2, width, channels + 3, device=device)
        slots = wide.to(dtype).transpose(1, 2)[..., 3:]
        weight = torch.randn(channels, 1, 3, 3, 3, device=device).to(dtype)
        yield Check(
            f"{shape} {dtype}", convolve_slots, plain_convolve_slots, (slots, weight), limit
        )


def mixing(device: torch.device) -> Iterator[Check]:
    """Heads that are no power of two, a rotation narrower than the head, slices of a larger tensor."""
    from spatial_ttt.model import ttt
    from spatial_ttt.model.kernels import mixing as kernel
    from spatial_ttt.model.layers import rotate

    def prepare(fast: Tensor, rope: Tensor, dim: int) -> tuple[Tensor, ...]:
        query, key, value = (ttt._heads(F.silu(x), dim) for x in fast.chunk(3, dim=-1))
        return rotate(ttt._unit(query), rope), rotate(ttt._unit(key), rope), value

    def combine(attended: Tensor, read: Tensor, weight: Tensor, gate: Tensor) -> Tensor:
        norm = read * torch.rsqrt(read.square().mean(-1, keepdim=True) + 1e-5)
        gated = weight * norm * gate.transpose(1, 2)[..., None]
        return attended + gated.transpose(1, 2).flatten(2)

    sizes = [(2, 5, 3, 32, 16), (1, 37, 2, 48, 48)]
    if device.type == "cuda":
        sizes += [(2, 701, 6, 64, 64), (1, 300, 4, 512, 128)]
    for size, (dtype, limit) in product(sizes, ((torch.float32, 1e-6), (torch.bfloat16, 6e-3))):
        batch, length, heads, dim, turned = size
        fast = torch.randn(batch, length + 2, 3 * heads * dim, device=device)[:, 2:].to(dtype)
        rope = torch.randn(batch, length, turned, device=device).to(dtype)
        yield Check(
            f"prepare {size} {dtype}",
            lambda fast, rope=rope, dim=dim: kernel.prepare(fast, rope, dim, 1e-5),
            lambda fast, rope=rope, dim=dim: prepare(fast, rope.double(), dim),
            (fast,),
            limit,
        )
        shapes = (
            (batch, length, heads * dim),
            (batch, heads, length, dim),
            (dim,),
            (batch, length, heads),
        )
        parts = [torch.randn(*shape, device=device).to(dtype) for shape in shapes]
        fused: Function = lambda *parts: kernel.combine(*parts, 1e-5)  # noqa: E731
        yield Check(f"combine {size} {dtype}", fused, combine, parts, limit)


def network(device: torch.device) -> Iterator[Check]:
    """Read and write of a width that is no power of two, down from wider tensors."""
    from spatial_ttt.model import fast_weights as fw
    from spatial_ttt.model.kernels import network as kernel

    def read(gate: Tensor, up: Tensor, down: Tensor, query: Tensor) -> Tensor:
        return fw.plain_apply(fw.FastWeights(gate, up, down), query)

    def write(
        gate: Tensor, up: Tensor, down: Tensor, key: Tensor, value: Tensor, lr: Tensor
    ) -> tuple[Tensor, ...]:
        inputs = fw.FastInputs(key, key, value, lr, lr[..., 0])
        return fw.plain_gradient(fw.FastWeights(gate, up, down), inputs)

    sizes = [(2, 3, 7, 24)] + ([(1, 4, 701, 512), (2, 2, 130, 64)] if device.type == "cuda" else [])
    for size, (dtype, limit) in product(sizes, ((torch.float32, 2e-6), (torch.bfloat16, 0.03))):
        batch, heads, length, dim = size
        weights = [torch.randn(batch, heads, dim, dim, device=device) * dim**-0.5 for _ in range(3)]
        wide = torch.randn(2, batch, heads, length + 3, dim, device=device).to(dtype)
        key, value = wide[:, :, :, 2:-1]
        lr = torch.rand(batch, length, heads, 3, device=device).transpose(1, 2)
        yield Check(f"apply {size} {dtype}", kernel.apply, read, (*weights, key), limit)
        yield Check(
            f"gradient {size} {dtype}", kernel.gradient, write, (*weights, key, value, lr), limit
        )


def scan(device: torch.device) -> Iterator[Check]:
    """Every rule over a few chunks with an odd end; then pieces that carry the state across borders."""
    from spatial_ttt.model.configuration import paper_ttt_config

    on_gpu = device.type == "cuda"
    rules = list(product((True, False), (True, False), ("post", "pre")))
    for size, (muon, momentum, placement) in product((32, 64) if on_gpu else (32,), rules):
        config = paper_ttt_config(
            use_muon=muon,
            use_momentum=momentum,
            norm_placement=placement,
            chunk_size=21,
            newton_schulz_dtype="float32",
        )
        inputs = scan_inputs((2, 2, 50, size), device)
        name = f"{size} muon {muon} momentum {momentum} {placement}"
        limit = 2e-4 if muon else 5e-6
        yield Check(
            name,
            scan_by_pieces(config, "triton", (50,)),
            scan_by_pieces(config, "reference", (50,)),
            inputs,
            limit,
        )
    for placement in ("post", "pre"):
        config = paper_ttt_config(
            norm_placement=placement, chunk_size=16, newton_schulz_dtype="float32", use_muon=on_gpu
        )
        borders = (5, 53, 96)
        inputs = scan_inputs((1, 2, 96, 32), device)
        name = f"pieces {placement}"
        yield Check(
            name,
            scan_by_pieces(config, "triton", borders),
            scan_by_pieces(config, "reference", borders),
            inputs,
            2e-3,
        )
    for size, muon in product((32, 64) if on_gpu else (32,), (False,)):
        config = paper_ttt_config(chunk_size=64, newton_schulz_dtype="float32", use_muon=muon)
        inputs = [x.to(torch.bfloat16) for x in scan_inputs((2, 2, 150, size), device)[:5]]
        inputs += scan_inputs((2, 2, 150, size), device)[5:]
        name = f"{size} bfloat16"
        yield Check(
            name,
            scan_by_pieces(config, "triton", (150,)),
            scan_by_pieces(config, "reference", (150,)),
            inputs,
            0.03,
        )


def scan_inputs(shape: Sequence[int], device: torch.device) -> list[Tensor]:
    """Query, key, value, lr, momentum and the three initial weights, as leaves of a graph."""
    batch, heads, length, size = shape
    query, key, value = (torch.randn(*shape, device=device) for _ in range(3))
    lr = 0.1 * torch.rand(batch, heads, length, 3, device=device)
    momentum = torch.rand(batch, heads, length, device=device)
    initial = [torch.randn(heads, size, size, device=device) * size**-0.5 for _ in range(3)]
    return [F.normalize(query, dim=-1), F.normalize(key, dim=-1), value, lr, momentum, *initial]


def scan_by_pieces(
    config: Any,
    backend: str,
    borders: Sequence[int],
    *,
    lone_writes: bool = True,
    keep_newton_schulz: bool = False,
) -> Function:
    """Scan piece by piece; with several pieces the last state counts as a result.

    Without `lone_writes` a full chunk is written by the plain rule: very narrow heads have no kernel for that.
    """
    from spatial_ttt.model import fast_weights as fw
    from spatial_ttt.model.kernels import request_backend

    def run(
        query: Tensor, key: Tensor, value: Tensor, lr: Tensor, beta: Tensor, *first: Tensor
    ) -> tuple[Tensor, ...]:
        weights = fw.FastWeights(*first)
        state = fw.initial_state(weights, query.shape[0])
        inputs = fw.FastInputs(query, key, value, lr, beta)
        keep = len(borders) > 1
        how = {"keep_state": keep, "keep_newton_schulz": keep_newton_schulz}
        start, outputs = 0, []
        for stop in borders:
            if state.num_tokens and not lone_writes:
                with request_backend("reference"):
                    state = fw.commit(state, weights, config)
            with request_backend(backend):
                piece = inputs.cut(start, stop)
                out, state = fw.scan(state, piece, weights, config, **how)
            outputs.append(out)
            start = stop
        ends = (*state.weights, *(state.master or ()), *(state.momentum or ())) if keep else ()
        return (torch.cat(outputs, dim=2), *ends)

    return run


CHECKS = {
    "newton_schulz": newton_schulz,
    "convolution": convolution,
    "mixing": mixing,
    "network": network,
    "scan": scan,
    "wide_scan": wide_scan,
    "whole_convolution": whole_convolution,
    "packed": packed,
    "decoder": decoder,
    "shaping": shaping,
    "heads": heads,
    "trained_heads": trained_heads,
    "trained_rates": trained_rates,
    "streaming": streaming,
    "tower": tower,
    "tower_attention": tower_attention,
    "patching": patching,
    "runs": runs,
    "attention": attention,
    "steady": steady,
    "commit": commit,
    "merging": merging,
    "blocks": blocks,
    "answer": answer,
}


def run(operation: str, device: torch.device) -> dict[str, tuple[float, float]]:
    """Largest relative error and its limit, by check."""
    torch.manual_seed(0)
    found = {}
    for check in CHECKS[operation](device):
        exact = [x.double() for x in check.inputs]
        if check.has_gradients:
            wanted, upstream = _results(check.plain, exact, None)
            got, _ = _results(check.fast, check.inputs, upstream)
        else:
            wanted, got = _outputs(check.plain, exact), _outputs(check.fast, check.inputs)
        errors = [_error(a, b) for a, b in zip(got, wanted, strict=True)]
        found[check.name] = (max(errors), check.limit)
    return found


def _results(
    function: Function, inputs: Sequence[Tensor], upstream: list[Tensor] | None
) -> tuple[list[Tensor], list[Tensor]]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills fresh memory with NaN
    try:
        outputs = function(*leaves)
        outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
        if upstream is None:
            upstream = [torch.randn_like(o) for o in outputs]
        given = [u.to(o.dtype) for u, o in zip(upstream, outputs, strict=True)]
        grads = torch.autograd.grad(outputs, leaves, given, allow_unused=True)
    finally:
        torch.use_deterministic_algorithms(False)
    zeros = [torch.zeros_like(x) if g is None else g for g, x in zip(grads, leaves, strict=True)]
    return [*(o.detach() for o in outputs), *zeros], upstream


@torch.no_grad()
def _outputs(function: Function, inputs: Sequence[Tensor]) -> list[Tensor]:
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills fresh memory with NaN
    try:
        outputs = function(*(x.clone() for x in inputs))
    finally:
        torch.use_deterministic_algorithms(False)
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def _error(got: Tensor, wanted: Tensor) -> float:
    if got.shape != wanted.shape:
        return float("inf")
    error = (got.double() - wanted).norm() / wanted.norm().clamp_min(1e-12)
    return float(error) if bool(torch.isfinite(error)) else float("inf")


if __name__ == "__main__":
    import tests.model.kernels.interpreter  # noqa: F401

    sys.exit(tell_each(sys.argv[1:], lambda name: run(name, torch.device("cpu"))))
