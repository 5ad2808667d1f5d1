"""Newton-Schulz that saves only its input: the five steps are made again in the backward pass.

With X' = aX + BX, B = bA + cAA, A = XX' a step's gradient is, for G the gradient of its result,
S = GX' + XG' and T = SA:  aG + BG + (bS + c(T + T'))X.  Works on every device and dtype.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spatial_ttt.model.newton_schulz import COEFFICIENTS, NORM_EPS

TRITON_SIZES = (32, 64, 128)


def triton_problem(matrices: Tensor, work: torch.dtype) -> str | None:
    """Why the Triton kernel cannot take these matrices (None: it can)."""
    rows, cols = matrices.shape[-2:]
    if work == torch.float32 and rows > 64:
        return f"{rows}x{cols} in float32 does not fit shared memory"
    if rows != cols or rows not in TRITON_SIZES:
        return f"it takes square matrices of {', '.join(map(str, TRITON_SIZES))}, got {rows}x{cols}"
    return None


def newton_schulz(matrices: Tensor, work: torch.dtype, backend: str) -> Tensor:
    """Roughly orthogonalise each matrix of [..., R, C], R <= C; products in `work`."""
    flat = matrices.reshape(-1, *matrices.shape[-2:])
    out: Tensor = _NewtonSchulz.apply(flat, work, backend)
    return out.reshape(matrices.shape)


class _NewtonSchulz(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrices: Tensor, work: torch.dtype, backend: str) -> Tensor:
        ctx.save_for_backward(matrices)
        ctx.work, ctx.backend = work, backend
        if backend == "triton":
            from spatial_ttt.model.kernels import newton_schulz_triton

            return newton_schulz_triton.forward(matrices, work)
        return forward(matrices, work)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (matrices,) = ctx.saved_tensors
        if ctx.backend == "triton":
            from spatial_ttt.model.kernels import newton_schulz_triton

            return newton_schulz_triton.backward(matrices, grad, ctx.work), None, None
        return backward(matrices, grad, ctx.work), None, None


def forward(matrices: Tensor, work: torch.dtype) -> Tensor:
    """[N, R, C] -> [N, R, C] with three launches a step."""
    x = _start(matrices, work)
    for step in COEFFICIENTS:
        x = _advance(x, step)
    return x.to(matrices.dtype)


def backward(matrices: Tensor, grad: Tensor, work: torch.dtype) -> Tensor:
    """Gradient of `forward` at `matrices` for the gradient of its result."""
    x = _start(matrices, work)
    before = []
    for step in COEFFICIENTS:
        before.append(x)
        x = _advance(x, step) if step is not COEFFICIENTS[-1] else x
    g = grad.to(work)
    for x, (a, b, c) in zip(reversed(before), reversed(COEFFICIENTS), strict=True):
        gram = torch.bmm(x, x.mT)
        poly = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        outer = torch.bmm(g, x.mT)
        symmetric = outer + outer.mT
        twist = torch.bmm(symmetric, gram)
        d_gram = torch.add(twist, twist.mT).mul_(c).add_(symmetric, alpha=b)
        g = torch.baddbmm(torch.baddbmm(g, poly, g, beta=a), d_gram, x)
    exact = g.to(matrices.dtype)
    norm = _norm(matrices)
    scale = 1 / (norm + NORM_EPS)
    along = (exact * matrices).sum((-2, -1), keepdim=True) * scale.square() / norm
    return exact * scale - matrices * torch.where(norm > 0, along, 0)


def _start(matrices: Tensor, work: torch.dtype) -> Tensor:
    return (matrices / (_norm(matrices) + NORM_EPS)).to(work)


def _norm(matrices: Tensor) -> Tensor:
    return torch.linalg.vector_norm(matrices, dim=(-2, -1), keepdim=True)


def _advance(x: Tensor, step: tuple[float, float, float]) -> Tensor:
    a, b, c = step
    gram = torch.bmm(x, x.mT)
    poly = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    return torch.baddbmm(x, poly, x, beta=a)
