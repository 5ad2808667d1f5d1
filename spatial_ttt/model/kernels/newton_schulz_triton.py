"""Newton-Schulz of small square matrices in Triton: one program a matrix, all five steps on chip.

`polish` and `polish_backward` work on a tile in registers; the scan kernels use them too. The backward pass
keeps the five inputs of the steps in a scratch block per program, which stays in the L2 cache.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# Kernels are Triton's language, which has no types of Python's.
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from spatial_ttt.model.kernels.products import constant, product, product_options, total
from spatial_ttt.model.newton_schulz import COEFFICIENTS, NORM_EPS

STEPS = len(COEFFICIENTS)
_STEPS = constant(STEPS)
_A0, _B0, _C0 = (constant(x) for x in COEFFICIENTS[0])
_A1, _B1, _C1 = (constant(x) for x in COEFFICIENTS[1])
_A2, _B2, _C2 = (constant(x) for x in COEFFICIENTS[2])
_A3, _B3, _C3 = (constant(x) for x in COEFFICIENTS[3])
_A4, _B4, _C4 = (constant(x) for x in COEFFICIENTS[4])
_EPS = constant(NORM_EPS)


@triton.jit
def _pick(step, x0, x1, x2, x3, x4):
    """x of that step (a loop keeps the code, its registers and its compile time small)."""
    late = tl.where(step == 3, x3, x4)
    return tl.where(step == 0, x0, tl.where(step == 1, x1, tl.where(step == 2, x2, late)))


@triton.jit
def _advance(x, step, ROUND: tl.constexpr, WIDE: tl.constexpr):
    """One step: x -> a x + (b A + c A A) x, A = x x'; x and the result are rounded.

    Every term reads the same rounded x and A: a x and B x nearly cancel, so different roundings
    would not.
    """
    a = _pick(step, _A0, _A1, _A2, _A3, _A4)
    b = _pick(step, _B0, _B1, _B2, _B3, _B4)
    c = _pick(step, _C0, _C1, _C2, _C3, _C4)
    gram = product(x, tl.trans(x), ROUND, WIDE).to(ROUND)
    poly = b * gram.to(tl.float32) + c * product(gram, gram, ROUND, WIDE)
    return (a * x.to(tl.float32) + product(poly.to(ROUND), x, ROUND, WIDE)).to(ROUND)


@triton.jit
def _retreat(x, g, step, ROUND: tl.constexpr, WIDE: tl.constexpr):
    """Gradient before a step from the gradient `g` after it, both rounded; `x` is the step's input."""
    a = _pick(step, _A0, _A1, _A2, _A3, _A4)
    b = _pick(step, _B0, _B1, _B2, _B3, _B4)
    c = _pick(step, _C0, _C1, _C2, _C3, _C4)
    gram = product(x, tl.trans(x), ROUND, WIDE).to(ROUND)
    symmetric = product(g, tl.trans(x), ROUND, WIDE) + product(x, tl.trans(g), ROUND, WIDE)
    small = symmetric.to(ROUND)
    twist = product(small, gram, ROUND, WIDE) + product(gram, small, ROUND, WIDE)
    d_gram = (b * symmetric + c * twist).to(ROUND)
    poly = (b * gram.to(tl.float32) + c * product(gram, gram, ROUND, WIDE)).to(ROUND)
    result = a * g.to(tl.float32) + product(poly, g, ROUND, WIDE)
    return (result + product(d_gram, x, ROUND, WIDE)).to(ROUND)


@triton.jit
def polish(m, ROUND: tl.constexpr, WIDE: tl.constexpr):
    """Newton-Schulz of one matrix m (float32 tile), rounded."""
    x = (m / (tl.sqrt(total(m * m)) + _EPS)).to(ROUND)
    for step in tl.range(0, _STEPS, num_stages=1):
        x = _advance(x, step, ROUND, WIDE)
    return x


@triton.jit
def polish_backward(m, g, scratch, D: tl.constexpr, ROUND: tl.constexpr, WIDE: tl.constexpr):
    """Gradient of `polish` at m for the gradient g of its result (float32 tiles).

    `scratch` points at STEPS * D * D entries of this program's own.
    """
    row = tl.arange(0, D)
    at = row[:, None] * D + row[None, :]
    norm = tl.sqrt(total(m * m))
    scale = 1.0 / (norm + _EPS)
    x = (m * scale).to(ROUND)
    tl.store(scratch + at, x)
    for step in tl.range(0, _STEPS - 1, num_stages=1):
        x = _advance(x, step, ROUND, WIDE)
        tl.store(scratch + (step + 1) * (D * D) + at, x)
    tl.debug_barrier()
    d = g.to(ROUND)
    for back in tl.range(0, _STEPS, num_stages=1):
        step = _STEPS - 1 - back
        x = tl.load(scratch + step * (D * D) + at)
        d = _retreat(x, d, step, ROUND, WIDE)
    tl.debug_barrier()  # the next user of the scratch may not overtake these loads
    d, unit = d.to(tl.float32), x.to(tl.float32)  # x is m / |m| again
    return d * scale - unit * (total(d * unit) / tl.where(norm > 0, norm, 1.0))


@triton.jit
def _forward(source, out, D: tl.constexpr, ROUND: tl.constexpr, WIDE: tl.constexpr):
    row = tl.arange(0, D)
    at = tl.program_id(0).to(tl.int64) * (D * D) + row[:, None] * D + row[None, :]
    m = tl.load(source + at).to(tl.float32)
    tl.store(out + at, polish(m, ROUND, WIDE).to(out.dtype.element_ty))


@triton.jit
def _backward(source, grad, scratch, out, D: tl.constexpr, ROUND: tl.constexpr, WIDE: tl.constexpr):
    row = tl.arange(0, D)
    which = tl.program_id(0).to(tl.int64)
    at = which * (D * D) + row[:, None] * D + row[None, :]
    m = tl.load(source + at).to(tl.float32)
    g = tl.load(grad + at).to(tl.float32)
    own = scratch + which * (_STEPS * D * D)
    tl.store(out + at, polish_backward(m, g, own, D, ROUND, WIDE).to(out.dtype.element_ty))


def _options(matrices: Tensor, work: torch.dtype) -> dict[str, Any]:
    size = matrices.shape[-1]
    return {"D": size, "num_warps": 8 if size >= 128 else 4, **product_options(work)}


def forward(matrices: Tensor, work: torch.dtype) -> Tensor:
    """[N, D, D] -> [N, D, D]; products in `work`, sums in float32."""
    matrices = matrices.contiguous()
    out = torch.empty_like(matrices)
    _forward[(matrices.shape[0],)](matrices, out, **_options(matrices, work))
    return out


def backward(matrices: Tensor, grad: Tensor, work: torch.dtype) -> Tensor:
    """Gradient of `forward` at `matrices` for the gradient of its result."""
    matrices, grad = matrices.contiguous(), grad.contiguous()
    out = torch.empty_like(matrices)
    count, size, _ = matrices.shape
    scratch = matrices.new_empty(count, STEPS, size, size, dtype=work)
    _backward[(count,)](matrices, grad, scratch, out, **_options(matrices, work))
    return out
