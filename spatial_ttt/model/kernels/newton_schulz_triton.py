"""Newton-Schulz of small square matrices in Triton: one program a matrix, all five steps on chip.

`polish` and `polish_backward` work on a tile in registers; the scan kernel uses them too.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from spatial_ttt.model.kernels.newton_schulz import COEFFICIENTS, NORM_EPS
from spatial_ttt.model.kernels.products import constant, product, product_options, total

_A0, _B0, _C0 = (constant(x) for x in COEFFICIENTS[0])
_A1, _B1, _C1 = (constant(x) for x in COEFFICIENTS[1])
_A2, _B2, _C2 = (constant(x) for x in COEFFICIENTS[2])
_A3, _B3, _C3 = (constant(x) for x in COEFFICIENTS[3])
_A4, _B4, _C4 = (constant(x) for x in COEFFICIENTS[4])
_EPS = constant(NORM_EPS)


@triton.jit
def _advance(x, a, b, c, ROUND: tl.constexpr, WIDE: tl.constexpr):
    """One step: x -> a x + (b A + c A A) x, A = x x'; x and the result are rounded.

    Every term reads the same rounded x and A: a x and B x nearly cancel, so different roundings
    would not.
    """
    gram = product(x, tl.trans(x), ROUND, WIDE).to(ROUND)
    poly = b * gram.to(tl.float32) + c * product(gram, gram, ROUND, WIDE)
    return (a * x.to(tl.float32) + product(poly.to(ROUND), x, ROUND, WIDE)).to(ROUND)


@triton.jit
def _retreat(x, g, a, b, c, ROUND: tl.constexpr, WIDE: tl.constexpr):
    """Gradient before a step from the gradient `g` after it; `x` is the step's input."""
    gram = product(x, tl.trans(x), ROUND, WIDE).to(ROUND)
    poly = (b * gram.to(tl.float32) + c * product(gram, gram, ROUND, WIDE)).to(ROUND)
    operand = g.to(ROUND)
    outer = product(operand, tl.trans(x), ROUND, WIDE)
    symmetric = outer + tl.trans(outer)
    twist = product(symmetric.to(ROUND), gram, ROUND, WIDE)
    d_gram = b * symmetric + c * (twist + tl.trans(twist))
    g = a * operand.to(tl.float32) + product(poly, operand, ROUND, WIDE)
    return g + product(d_gram.to(ROUND), x, ROUND, WIDE)


@triton.jit
def polish(m, ROUND: tl.constexpr, WIDE: tl.constexpr):
    """Newton-Schulz of one matrix m (float32 tile), rounded."""
    x = (m / (tl.sqrt(total(m * m)) + _EPS)).to(ROUND)
    x = _advance(x, _A0, _B0, _C0, ROUND, WIDE)
    x = _advance(x, _A1, _B1, _C1, ROUND, WIDE)
    x = _advance(x, _A2, _B2, _C2, ROUND, WIDE)
    x = _advance(x, _A3, _B3, _C3, ROUND, WIDE)
    return _advance(x, _A4, _B4, _C4, ROUND, WIDE)


@triton.jit
def polish_backward(m, g, ROUND: tl.constexpr, WIDE: tl.constexpr):
    """Gradient of `polish` at m for the gradient g of its result (float32 tiles)."""
    norm = tl.sqrt(total(m * m))
    scale = 1.0 / (norm + _EPS)
    x0 = (m * scale).to(ROUND)
    x1 = _advance(x0, _A0, _B0, _C0, ROUND, WIDE)
    x2 = _advance(x1, _A1, _B1, _C1, ROUND, WIDE)
    x3 = _advance(x2, _A2, _B2, _C2, ROUND, WIDE)
    x4 = _advance(x3, _A3, _B3, _C3, ROUND, WIDE)
    g = _retreat(x4, g, _A4, _B4, _C4, ROUND, WIDE)
    g = _retreat(x3, g, _A3, _B3, _C3, ROUND, WIDE)
    g = _retreat(x2, g, _A2, _B2, _C2, ROUND, WIDE)
    g = _retreat(x1, g, _A1, _B1, _C1, ROUND, WIDE)
    g = _retreat(x0, g, _A0, _B0, _C0, ROUND, WIDE)
    along = total(g * m) * scale * scale / tl.where(norm > 0, norm, 1.0)
    return g * scale - m * along


@triton.jit
def _forward(source, out, D: tl.constexpr, ROUND: tl.constexpr, WIDE: tl.constexpr):
    row = tl.arange(0, D)
    at = tl.program_id(0).to(tl.int64) * (D * D) + row[:, None] * D + row[None, :]
    m = tl.load(source + at).to(tl.float32)
    tl.store(out + at, polish(m, ROUND, WIDE).to(out.dtype.element_ty))


@triton.jit
def _backward(source, grad, out, D: tl.constexpr, ROUND: tl.constexpr, WIDE: tl.constexpr):
    row = tl.arange(0, D)
    at = tl.program_id(0).to(tl.int64) * (D * D) + row[:, None] * D + row[None, :]
    m = tl.load(source + at).to(tl.float32)
    g = tl.load(grad + at).to(tl.float32)
    tl.store(out + at, polish_backward(m, g, ROUND, WIDE).to(out.dtype.element_ty))


def _warps(size: int) -> int:
    return 8 if size >= 128 else 4


def forward(matrices: Tensor, work: torch.dtype) -> Tensor:
    """[N, D, D] -> [N, D, D]; products in `work`, sums in float32."""
    matrices = matrices.contiguous()
    out = torch.empty_like(matrices)
    count, size, _ = matrices.shape
    _forward[(count,)](matrices, out, D=size, num_warps=_warps(size), **product_options(work))
    return out


def backward(matrices: Tensor, grad: Tensor, work: torch.dtype) -> Tensor:
    """Gradient of `forward` at `matrices` for the gradient of its result."""
    matrices, grad = matrices.contiguous(), grad.contiguous()
    out = torch.empty_like(matrices)
    count, size, _ = matrices.shape
    _backward[(count,)](matrices, grad, out, D=size, num_warps=_warps(size), **product_options(work))
    return out
