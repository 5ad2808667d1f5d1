"""The scan of the fast-weight recurrence: checks, timings, and a sweep over tile sizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.kernel_cases import Bench, Function, check, measure
from spatial_ttt.model import fast_weights as fw
from spatial_ttt.model.configuration import TTTConfig, paper_ttt_config
from spatial_ttt.model.kernels import request_backend

BATCH, HEADS, LENGTH, SIZE = 96, 6, 700, 64


def scan_cases(bench: Bench) -> None:
    """Both rules at odd lengths against float64, then a small model's batch at two chunk sizes."""
    for size in (32,) if bench.tiny else (32, 64):
        for placement in ("post", "pre"):
            for dtype in (torch.float32, torch.bfloat16):
                config = _config(53, placement, str(dtype).removeprefix("torch."))
                case = f"3x2x200x{size} {placement} {dtype}"
                inputs = scan_inputs(bench, (3, 2, 200, size), dtype)
                check(
                    bench,
                    "scan",
                    case,
                    _variants(bench, config),
                    _scan(config, "reference"),
                    inputs,
                    dtype,
                )
    if bench.tiny:
        return
    for chunk in (128, 256):
        config = _config(chunk, "post", "bfloat16")
        inputs = scan_inputs(bench, (BATCH, HEADS, LENGTH, SIZE), torch.bfloat16)
        for name, function in _variants(bench, config).items():
            measure(
                bench,
                "scan",
                f"{BATCH}x{HEADS}x{LENGTH}x{SIZE} chunk {chunk}",
                name,
                function,
                inputs,
            )


def network_cases(bench: Bench) -> None:
    """One chunk's read and write, wide and narrow heads."""
    from spatial_ttt.model.kernels import network

    def read(gate: Tensor, up: Tensor, down: Tensor, query: Tensor) -> Tensor:
        return fw.plain_apply(fw.FastWeights(gate, up, down), query)

    def write(
        gate: Tensor, up: Tensor, down: Tensor, key: Tensor, value: Tensor, lr: Tensor
    ) -> tuple[Tensor, ...]:
        inputs = fw.FastInputs(key, key, value, lr, lr[..., 0])
        return fw.plain_gradient(fw.FastWeights(gate, up, down), inputs)

    reads: dict[str, Function] = {"plain": read}
    writes: dict[str, Function] = {"plain": write}
    if bench.has_triton:
        reads["triton"], writes["triton"] = network.apply, network.gradient
    odd = (2, 3, 7, 24) if bench.tiny else (2, 3, 301, 96)
    shapes = [odd] if bench.tiny else [odd, (1, 4, 2648, 512), (96, 6, 128, 64)]
    for shape in shapes:
        batch, heads, _, size = shape
        for dtype in (torch.float32, torch.bfloat16):
            _, key, value, lr, _, *_ = scan_inputs(bench, shape, dtype)
            first = [torch.randn(batch, heads, size, size, device=bench.device) for _ in range(3)]
            first = [x * size**-0.5 for x in first]
            case = f"{'x'.join(map(str, shape))} {dtype}"
            if shape == odd:
                check(bench, "network", f"apply {case}", reads, read, (*first, key), dtype)
                check(
                    bench,
                    "network",
                    f"write {case}",
                    writes,
                    write,
                    (*first, key, value, lr),
                    dtype,
                )
            elif dtype == torch.bfloat16:
                for name in reads:
                    measure(bench, "network", f"apply {case}", name, reads[name], (*first, key))
                    measure(
                        bench,
                        "network",
                        f"write {case}",
                        name,
                        writes[name],
                        (*first, key, value, lr),
                    )


def tune(bench: Bench) -> None:
    """Times of tile sizes and warps; the best belong into `scan_launch`."""
    from spatial_ttt.model.kernels import scan_launch

    config = _config(128, "post", "bfloat16")
    inputs = scan_inputs(bench, (BATCH, HEADS, LENGTH, SIZE), torch.bfloat16)
    function = _scan(config, "triton")
    kept = scan_launch.FORWARD_TILE, scan_launch.BACKWARD_TILE
    for tokens, warps in ((32, 4), (32, 8), (64, 4), (64, 8), (16, 4)):
        scan_launch.FORWARD_TILE = scan_launch.BACKWARD_TILE = (tokens, warps)
        measure(bench, "tune", f"tiles of {tokens}, {warps} warps", "triton", function, inputs)
    scan_launch.FORWARD_TILE, scan_launch.BACKWARD_TILE = kept


def scan_inputs(bench: Bench, shape: Sequence[int], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Random query, key, value, lr, momentum and the three initial weights."""
    batch, heads, length, size = shape
    query, key, value = (torch.randn(*shape, device=bench.device) for _ in range(3))
    lr = 0.01 * torch.rand(batch, heads, length, 3, device=bench.device)
    momentum = torch.rand(batch, heads, length, device=bench.device)
    initial = [torch.randn(heads, size, size, device=bench.device) * size**-0.5 for _ in range(3)]
    tokens = (F.normalize(query, dim=-1), F.normalize(key, dim=-1), value)
    return (*(x.to(dtype) for x in tokens), lr, momentum.to(dtype), *initial)


def _config(chunk: int, placement: str, dtype: str) -> TTTConfig:
    return paper_ttt_config(chunk_size=chunk, norm_placement=placement, newton_schulz_dtype=dtype)


def _variants(bench: Bench, config: TTTConfig) -> dict[str, Function]:
    found = {"plain": _scan(config, "reference")}
    if bench.has_triton:
        found["triton"] = _scan(config, "triton")
    return found


def _scan(config: TTTConfig, backend: str) -> Function:
    def run(
        query: Tensor, key: Tensor, value: Tensor, lr: Tensor, momentum: Tensor, *initial: Tensor
    ) -> Tensor:
        with request_backend(backend):
            weights = fw.FastWeights(*initial)
            state = fw.initial_state(weights, query.shape[0])
            inputs = fw.FastInputs(query, key, value, lr, momentum)
            return fw.scan(state, inputs, weights, config, keep_state=False)[0]

    return run
