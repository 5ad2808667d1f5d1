"""Triton for `wide_scan`: Newton-Schulz of wide matrices whose steps are kept, and its gradient from what was kept.

What `wide_scan_triton` makes again for a gradient, X, A and P of every step, lies where the caller says, [3, steps, B,
H, 3, D, D] in the products' precision. Places differ from write to write, so launches are not one graph.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# Kernels are Triton's language, which has no types of Python's.
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from spatial_ttt.model.kernels.captured import Products
from spatial_ttt.model.kernels.products import product
from spatial_ttt.model.kernels.wide_scan_triton import StepLaunches, scale
from spatial_ttt.model.newton_schulz import COEFFICIENTS


@triton.jit
def _two_products(
    p, g, e, x, out, D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, ROUND: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """p g + e x, one float32 sum, of dense matrices."""
    blocks: tl.constexpr = D // N
    matrix = tl.program_id(1).to(tl.int64) * (D * D)
    rows = (tl.program_id(0) // blocks) * M + tl.arange(0, M)
    cols = (tl.program_id(0) % blocks) * N + tl.arange(0, N)
    k = tl.arange(0, K)
    acc = tl.zeros((M, N), tl.float32)
    for start in tl.range(0, D, K):
        left = tl.load(p + matrix + rows[:, None] * D + (start + k)[None, :])
        right = tl.load(g + matrix + (start + k)[:, None] * D + cols[None, :])
        acc += product(left, right, ROUND, WIDE)
    for start in tl.range(0, D, K):
        left = tl.load(e + matrix + rows[:, None] * D + (start + k)[None, :])
        right = tl.load(x + matrix + (start + k)[:, None] * D + cols[None, :])
        acc += product(left, right, ROUND, WIDE)
    found = acc.to(out.dtype.element_ty)
    tl.store(out + matrix + rows[:, None] * D + cols[None, :], found)


def room(writes: int, shape: torch.Size, work: torch.dtype, device: torch.device) -> Tensor:
    """Places for the steps of so many writes [B, H, 3, D, D]."""
    return torch.empty(writes, 3, len(COEFFICIENTS), *shape, dtype=work, device=device)


def orthogonalise(write: Tensor, squares: Tensor, steps: Tensor) -> Tensor:
    """As `wide_scan_triton.orthogonalise`, filling `steps`."""
    x, gram, poly = steps
    launch = StepLaunches(write.shape, steps.dtype)
    scale(write, squares, x[0])
    found = torch.empty_like(x[0])
    for n, coefficients in enumerate(COEFFICIENTS):
        later = x[n + 1] if n + 1 < len(COEFFICIENTS) else found
        launch.forward(x[n], (gram[n], poly[n], later), coefficients)
    return found


def backward_products(steps: Tensor) -> Products:
    """Of the gradient of Newton-Schulz: the input is the gradient of the result."""
    x, gram, poly = steps
    first, second, s, more = (torch.empty_like(x[0]) for _ in range(4))
    launch = StepLaunches(x[0].shape, steps.dtype)
    how, grid = launch.how | {"N": launch.how["M"]}, launch.whole

    def run() -> Tensor:
        g, other = first, second
        for n in reversed(range(len(COEFFICIENTS))):
            launch.terms(g, x[n], gram[n], (s, more), COEFFICIENTS[n])
            _two_products[grid](poly[n], g, more, x[n], other, **how)
            g, other = other, g
        return g

    return Products((first,), run)
