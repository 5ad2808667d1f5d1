"""The cases of benchmarks/kernels.py: per operation a check against float64 and timings at real shapes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from triton.errors import TritonError

from spatial_ttt.errors import SpatialTTTError
from spatial_ttt.model.convolution import plain_convolve_slots
from spatial_ttt.model.kernels import interpreting
from spatial_ttt.model.newton_schulz import plain_newton_schulz

FAILURES = (
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    TritonError,
    SpatialTTTError,
)
Function = Callable[..., Tensor | tuple[Tensor, ...]]
LIMITS = {torch.float32: 2e-4, torch.bfloat16: 8e-2}
"""Relative errors taken for right, if not 1.5 times what the plain version has; the figures are what counts."""


@dataclass
class Bench:
    """Where results go, and at what size."""

    device: torch.device
    tiny: bool
    record: Callable[[dict[str, Any]], None]
    folder: Path
    failures: list[str] = field(default_factory=list)

    @property
    def has_triton(self) -> bool:
        """Triton kernels can run on the device."""
        return self.device.type == "cuda" or interpreting()

    def report(self, section: str, case: str, variant: str, **figures: Any) -> None:
        """Print and record one line."""
        shown = "  ".join(
            f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items()
        )
        print(f"{section:14} {case:34} {variant:10} {shown}", flush=True)
        self.record({"section": section, "case": case, "variant": variant, **figures})

    def attempt(
        self, section: str, case: str, variant: str, work: Callable[[], dict[str, Any]]
    ) -> None:
        """Report what `work` returns, or that it failed; never stop the others."""
        try:
            figures = work()
        except FAILURES as error:
            self.failures.append(f"{section} {case} {variant}")
            text = str(error).strip().splitlines()
            figures = {"failed": f"{type(error).__name__}: {(text or ['?'])[-1][:300]}"}
        if figures.get("wrong"):
            self.failures.append(f"{section} {case} {variant}")
        self.report(section, case, variant, **figures)


def run(section: str, bench: Bench) -> None:
    """One section."""
    torch.manual_seed(0)
    if section in ("step", "profile"):
        from benchmarks import kernel_step

        (kernel_step.run_steps if section == "step" else kernel_step.profile_steps)(bench)
        return
    if section in ("scan", "tune", "network"):
        from benchmarks import kernel_scan

        chosen = {
            "scan": kernel_scan.scan_cases,
            "tune": kernel_scan.tune,
            "network": kernel_scan.network_cases,
        }
        chosen[section](bench)
        return
    if section == "heads":
        from benchmarks import kernel_heads

        kernel_heads.heads_cases(bench)
        return
    if section in ("attention", "products"):
        from benchmarks import kernel_attention

        attends = section == "attention"
        (kernel_attention.attention_cases if attends else kernel_attention.product_cases)(bench)
        return
    cases = {
        "newton_schulz": newton_schulz_cases,
        "convolution": convolution_cases,
        "mixing": mixing_cases,
    }
    cases[section](bench)


def newton_schulz_cases(bench: Bench) -> None:
    """Batches of square matrices: one write of all heads of a small model, of the 2B model."""
    from spatial_ttt.model.kernels import newton_schulz as kernel

    def variants(work: torch.dtype, size: int) -> dict[str, Function]:
        found: dict[str, Function] = {
            "plain": lambda m: plain_newton_schulz(m, str(work).removeprefix("torch.")),
            "torch": lambda m: kernel.newton_schulz(m, work, "reference"),
        }
        sample = torch.empty(size, size)
        if bench.has_triton and kernel.triton_problem(sample, work) is None:
            found["triton"] = lambda m: kernel.newton_schulz(m, work, "triton")
        return found

    for size in (32,) if bench.tiny else (32, 64, 128, 512):
        matrices = torch.randn(5, size, size, device=bench.device) * torch.rand(
            5, 1, 1, device=bench.device
        )
        for work in (torch.float32, torch.bfloat16):
            exact = lambda m: plain_newton_schulz(m, "float32")  # noqa: E731
            check(
                bench,
                "newton_schulz",
                f"{size} {work}",
                variants(work, size),
                exact,
                (matrices,),
                work,
            )
    shapes = (
        [(6, 32)] if bench.tiny else [(3 * 96 * 6, 64), (3 * 96 * 3, 128), (12, 512), (96, 512)]
    )
    for count, size in shapes:
        matrices = torch.randn(count, size, size, device=bench.device)
        for name, function in variants(torch.bfloat16, size).items():
            measure(
                bench,
                "newton_schulz",
                f"{count}x{size}x{size} bfloat16",
                name,
                function,
                (matrices,),
            )


def convolution_cases(bench: Bench) -> None:
    """Slots of a small model's batch and of the 2B model's 16 slots and single slot (q, k, v at once)."""
    from spatial_ttt.model.kernels.convolution import convolve_slots

    variants: dict[str, Function] = {"plain": plain_convolve_slots}
    if bench.has_triton:
        variants["triton"] = convolve_slots
    odd = (2, 2, 3, 2, 16) if bench.tiny else (3, 5, 7, 3, 144)
    for dtype in (torch.float32, torch.bfloat16):
        check(
            bench,
            "convolution",
            f"{odd} {dtype}",
            variants,
            plain_convolve_slots,
            _slots(odd, dtype, bench.device),
            dtype,
        )
    small = (96, 32, 3, 4, 3 * 384)
    wide = (96, 16, 6, 8, 3 * 384)
    shapes = (
        [(2, 3, 2, 2, 32)]
        if bench.tiny
        else [small, wide, (1, 16, 11, 15, 3 * 2048), (1, 1, 11, 15, 3 * 2048)]
    )
    for shape in shapes:
        inputs = _slots(shape, torch.bfloat16, bench.device)
        for name, function in variants.items():
            measure(
                bench,
                "convolution",
                "x".join(map(str, shape)) + " bfloat16",
                name,
                function,
                inputs,
            )


def _slots(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    batch, frames, height, width, channels = shape
    slots = torch.randn(batch, frames + 2, height, width, channels, device=device).to(dtype)
    return slots, torch.randn(channels, 1, 3, 3, 3, device=device).to(dtype)


def mixing_cases(bench: Bench) -> None:
    """What surrounds the scan: tokens to per-head inputs, and outputs to the layer's sum."""
    from spatial_ttt.model import ttt
    from spatial_ttt.model.kernels import mixing
    from spatial_ttt.model.layers import rotate

    def prepare(fast: Tensor, rope: Tensor, dim: int) -> tuple[Tensor, ...]:
        query, key, value = (ttt._heads(F.silu(x), dim) for x in fast.chunk(3, dim=-1))
        return rotate(ttt._unit(query), rope), rotate(ttt._unit(key), rope), value

    def combine(attended: Tensor, read: Tensor, weight: Tensor, gate: Tensor) -> Tensor:
        exact = read.to(torch.promote_types(read.dtype, torch.float32))
        scaled = exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + 1e-5)
        gated = weight * scaled.to(read.dtype) * gate.transpose(1, 2)[..., None]
        return attended + gated.transpose(1, 2).flatten(2)

    shapes = (
        [(2, 19, 3, 32, 32)]
        if bench.tiny
        else [(3, 37, 5, 64, 32), (96, 700, 6, 64, 64), (1, 2784, 4, 512, 128)]
    )
    for i, (batch, length, heads, dim, turned) in enumerate(shapes):
        for dtype in (torch.float32, torch.bfloat16):
            fast = torch.randn(batch, length, 3 * heads * dim, device=bench.device).to(dtype)
            rope = torch.randn(batch, length, turned, device=bench.device).to(dtype)
            sizes = (
                (batch, length, heads * dim),
                (batch, heads, length, dim),
                (dim,),
                (batch, length, heads),
            )
            parts = tuple(torch.randn(*size, device=bench.device).to(dtype) for size in sizes)

            def plain(fast: Tensor, rope: Tensor = rope, dim: int = dim) -> tuple[Tensor, ...]:
                return prepare(fast, rope.to(fast.dtype), dim)

            first: dict[str, Function] = {"plain": plain}
            second: dict[str, Function] = {"plain": combine}
            if bench.has_triton:
                first["triton"] = lambda fast, rope=rope, dim=dim: mixing.prepare(
                    fast, rope, dim, 1e-5
                )
                second["triton"] = lambda *parts: mixing.combine(*parts, 1e-5)
            case = f"{batch}x{length}x{heads}x{dim}"
            if i == 0:
                check(bench, "mixing", f"prepare {case} {dtype}", first, plain, (fast,), dtype)
                check(bench, "mixing", f"combine {case} {dtype}", second, combine, parts, dtype)
            elif dtype == torch.bfloat16:
                for name in first:
                    measure(bench, "mixing", f"prepare {case}", name, first[name], (fast,))
                    measure(bench, "mixing", f"combine {case}", name, second[name], parts)


def check(
    bench: Bench,
    section: str,
    case: str,
    variants: dict[str, Function],
    exact: Function,
    inputs: Sequence[Tensor],
    dtype: torch.dtype,
) -> None:
    """Errors of every variant's outputs and gradients against `exact` in float64, device memory poisoned."""
    noise: list[float] = []
    wanted, upstream = _results(exact, [x.double() for x in inputs], None)
    for name, function in variants.items():

        def work(name: str = name, function: Function = function) -> dict[str, Any]:
            poison(bench.device)
            got, _ = _results(function, inputs, upstream)
            errors = [relative_error(a, b) for a, b in zip(got, wanted, strict=True)]
            if name == "plain":  # bfloat16's own noise, which no variant has to undercut
                noise.extend(errors)
            allowed = [max(LIMITS[dtype], 1.5 * e) for e in noise] or [LIMITS[dtype]] * len(errors)
            wrong = not all(e < limit for e, limit in zip(errors, allowed, strict=True))
            return {
                "check": "wrong" if wrong else "ok",
                "errors": [float(f"{e:.2e}") for e in errors],
            } | ({"wrong": True} if wrong else {})

        bench.attempt(section, case, name, work)


def _results(
    function: Function, inputs: Sequence[Tensor], upstream: list[Tensor] | None
) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and input gradients; the outputs' gradients are drawn here or given."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    outputs = function(*leaves)
    outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
    if upstream is None:
        upstream = [torch.randn_like(o) for o in outputs]
    grads = torch.autograd.grad(
        outputs, leaves, [u.to(o.dtype) for u, o in zip(upstream, outputs, strict=True)]
    )
    return [*(o.detach() for o in outputs), *grads], upstream


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """|got - wanted| / |wanted|; NaN never passes."""
    error = (got.double() - wanted).norm() / wanted.norm().clamp_min(1e-30)
    return float(error) if bool(torch.isfinite(error)) else float("inf")


def poison(device: torch.device) -> None:
    """Leave NaN in the allocator's free memory."""
    if device.type == "cuda":
        for size in (1 << 28, 1 << 22, 1 << 16, 1 << 12):
            torch.full((size // 4,), float("nan"), device=device)


def measure(
    bench: Bench,
    section: str,
    case: str,
    variant: str,
    function: Function,
    inputs: Sequence[Tensor],
) -> None:
    """Median milliseconds of forward without gradients, and of forward and backward; peak MiB of the latter."""

    def work() -> dict[str, Any]:
        leaves = [x.detach().clone().requires_grad_() for x in inputs]

        def forward() -> None:
            with torch.no_grad():
                function(*leaves)

        def both() -> None:
            outputs = function(*leaves)
            outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
            torch.autograd.grad(outputs, leaves, [torch.ones_like(o) for o in outputs])

        return {
            "forward_ms": milliseconds(forward, bench),
            "both_ms": milliseconds(both, bench),
            "peak_mib": peak_mib(both, bench.device),
        }

    bench.attempt(section, case, variant, work)


def milliseconds(work: Callable[[], None], bench: Bench, seconds: float = 0.4) -> float:
    """Median time of one call."""
    if bench.device.type != "cuda":
        start = time.perf_counter()
        work()
        return 1e3 * (time.perf_counter() - start)
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 10 or (time.perf_counter() < until and len(times) < 100):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return median(times)


def peak_mib(work: Callable[[], None], device: torch.device) -> float:
    """Device memory above what was held before; 0 on the CPU."""
    if device.type != "cuda":
        return 0.0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - held) / 2**20
