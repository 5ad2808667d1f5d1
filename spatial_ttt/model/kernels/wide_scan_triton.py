"""Triton for `wide_scan`: Newton-Schulz of wide matrices and its gradient, the gradient of a write's row norms.

Matrices lie as in `commit_triton`, [B, H, 3, D, D]. With X' = aX + PX, P = bA + cAA, A = XX' a step's gradient is, for
G the gradient of its result, aG + PG + (bS + c(SA + AS))X with S = GX' + XG': S and SA + AS are symmetric, so half
of their tiles are made. All products of a pass are one graph on a GPU.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# Kernels are Triton's language, which has no types of Python's.
from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from spatial_ttt.model.kernels import commit_triton
from spatial_ttt.model.kernels.captured import Products, ready
from spatial_ttt.model.kernels.commit_triton import (
    _ENTRIES,
    _multiply,
    _square,
    launches,
    lower_tile,
    multiply_launch,
    newton_schulz_products,
    parts_of,
)
from spatial_ttt.model.kernels.products import product
from spatial_ttt.model.kernels.sizes import cdiv, next_power_of_2
from spatial_ttt.model.newton_schulz import COEFFICIENTS, NORM_EPS

_ROWS = 8  # of a program of `_norm_backward`


@triton.jit
def _symmetric(
    a, b, s, out, beta, alpha, D: tl.constexpr, M: tl.constexpr, K: tl.constexpr, HAS_SUM: tl.constexpr,
    ROUND: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """alpha (a b' + b a') + beta s: tiles on and below the diagonal, and their mirrors."""
    i, j = lower_tile(tl.program_id(0))
    matrix = tl.program_id(1).to(tl.int64)
    rows, cols, k = i * M + tl.arange(0, M), j * M + tl.arange(0, M), tl.arange(0, K)
    a += matrix * (D * D)
    b += matrix * (D * D)
    out += matrix * (D * D)
    acc = tl.zeros((M, M), tl.float32)
    for start in tl.range(0, D, K):
        at_rows = rows[:, None] * D + (start + k)[None, :]
        at_cols = cols[:, None] * D + (start + k)[None, :]
        acc += product(tl.load(a + at_rows), tl.trans(tl.load(b + at_cols)), ROUND, WIDE)
        acc += product(tl.load(b + at_rows), tl.trans(tl.load(a + at_cols)), ROUND, WIDE)
    at = rows[:, None] * D + cols[None, :]
    acc = alpha * acc
    if HAS_SUM:
        acc += beta * tl.load(s + matrix * (D * D) + at).to(tl.float32)
    found = acc.to(out.dtype.element_ty)
    tl.store(out + at, found)
    if i != j:
        tl.store(out + cols[:, None] * D + rows[None, :], tl.trans(found))


@triton.jit
def _multiply_two(
    p, g, d, x, out, a, D: tl.constexpr, M: tl.constexpr, K: tl.constexpr, ROUND: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """p g + d x + a g."""
    blocks: tl.constexpr = D // M
    offset = tl.program_id(1).to(tl.int64) * (D * D)
    rows = (tl.program_id(0) // blocks) * M + tl.arange(0, M)
    cols = (tl.program_id(0) % blocks) * M + tl.arange(0, M)
    k = tl.arange(0, K)
    acc = tl.zeros((M, M), tl.float32)
    for start in tl.range(0, D, K):
        at_left = offset + rows[:, None] * D + (start + k)[None, :]
        at_right = offset + (start + k)[:, None] * D + cols[None, :]
        acc += product(tl.load(p + at_left), tl.load(g + at_right), ROUND, WIDE)
        acc += product(tl.load(d + at_left), tl.load(x + at_right), ROUND, WIDE)
    at = offset + rows[:, None] * D + cols[None, :]
    acc += a * tl.load(g + at).to(tl.float32)
    tl.store(out + at, acc.to(out.dtype.element_ty))


@triton.jit
def _norm_backward(
    total, norms, grad, more, out, low, d_norms, heads, eps, D: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
    HAS_MORE: tl.constexpr, HAS_LOW: tl.constexpr,
):  # fmt: skip
    """Through rows that were given the trained norms: gradients of `total` [+ more], rounded too, and of the norms."""
    matrix = tl.program_id(0).to(tl.int64)
    head, kind = matrix // 3, matrix % 3
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, BLOCK)
    inside = (row < D)[:, None] & (c < D)[None, :]
    at = matrix * (D * D) + row[:, None] * D + c[None, :]
    x = tl.load(total + at, mask=inside, other=0.0)
    g = tl.load(grad + at, mask=inside, other=0.0)
    target = tl.load(norms + ((head % heads) * 3 + kind) * D + row, mask=row < D, other=0.0)
    length = tl.sqrt(tl.sum(x * x, axis=1))
    along = tl.sum(g * x, axis=1) / (length + eps)
    tl.store(d_norms + matrix * D + row, along, mask=row < D)
    scale = target / (length + eps)
    back = scale * along / tl.where(length > 0.0, length, 1.0)
    found = g * scale[:, None] - x * back[:, None]
    if HAS_MORE:
        found += tl.load(more + at, mask=inside, other=0.0)
    tl.store(out + at, found, mask=inside)
    if HAS_LOW:
        tl.store(low + at, found.to(low.dtype.element_ty), mask=inside)


@triton.jit
def _dot(a, b, sums, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """Sums of a * b in this block of a matrix."""
    matrix = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(a + matrix * SIZE + at, mask=at < SIZE, other=0.0).to(tl.float32)
    y = tl.load(b + matrix * SIZE + at, mask=at < SIZE, other=0.0).to(tl.float32)
    tl.store(sums + matrix * tl.num_programs(1) + tl.program_id(1), tl.sum(x * y, axis=0))


@triton.jit
def _write_backward(
    grad, write, squares, dots, later, beta, out, low, d_beta, eps, SIZE: tl.constexpr, BLOCK: tl.constexpr,
    PARTS: tl.constexpr, WIDTH: tl.constexpr, HAS_MUON: tl.constexpr, HAS_LATER: tl.constexpr, HAS_BETA: tl.constexpr,
):  # fmt: skip
    """The gradient of a write: through the norm it was divided by, and [beta times] that of the write after it."""
    matrix = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = at < SIZE
    at += matrix * SIZE
    found = tl.load(grad + at, mask=mask, other=0.0).to(tl.float32)
    m = tl.load(write + at, mask=mask, other=0.0)
    if HAS_MUON:
        part = tl.arange(0, WIDTH)
        sums = tl.load(squares + matrix * PARTS + part, mask=part < PARTS, other=0.0)
        norm = tl.sqrt(tl.sum(sums, axis=0))
        along = tl.load(dots + matrix * PARTS + part, mask=part < PARTS, other=0.0)
        scale = 1.0 / (norm + eps)
        back = tl.sum(along, axis=0) * scale * scale / tl.where(norm > 0.0, norm, 1.0)
        found = found * scale - m * back
    if HAS_LATER:
        after = tl.load(later + at, mask=mask, other=0.0)
        if HAS_BETA:
            tl.store(d_beta + matrix * PARTS + tl.program_id(1), tl.sum(after * m, axis=0))
            after *= tl.load(beta + matrix // 3)
        found += after
    tl.store(out + at, found, mask=mask)
    tl.store(low + at, found.to(low.dtype.element_ty), mask=mask)


def orthogonalise(write: Tensor, squares: Tensor, work: torch.dtype) -> Tensor:
    """As `commit_triton.orthogonalise`, with products in `work` that are one graph on a GPU."""
    return commit_triton.orthogonalise(write, squares, ready(newton_schulz_products, write, work))


def backward_products(like: Tensor, work: torch.dtype) -> Products:
    """Of the gradient of Newton-Schulz: inputs are the scaled matrices and the gradient of the result."""
    return ready(_backward_products, like, work)


def norm_backward(
    total: Tensor,
    norms: Tensor,
    grad: Tensor,
    more: Tensor | None,
    out: tuple[Tensor, Tensor | None, Tensor],
    eps: float,
) -> None:
    """Gradient of `total` [B, H, 3, D, D] + `more` from that of the weights, rounded, and of the norms [B, H, 3, D].

    All go into the places of `out`; the first may be `grad` or `more`.
    """
    to, low, d_norms = out
    width = total.shape[-1]
    _norm_backward[(total.shape[:3].numel(), cdiv(width, _ROWS))](
        total, norms, grad, grad if more is None else more, to, to if low is None else low, d_norms, norms.shape[0],
        eps, D=width, BLOCK=next_power_of_2(width), ROWS=_ROWS, HAS_MORE=more is not None,
        HAS_LOW=low is not None, num_warps=4,
    )  # fmt: skip


class Later(NamedTuple):
    """What follows a write: the gradient it gets from there [B, H, 3, D, D], times beta [B, H] if there is one."""

    grad: Tensor
    beta: Tensor | None
    d_beta: Tensor | None
    """Where the sums of beta's gradient go, [B, H, 3, blocks]."""


def write_backward(
    grad: Tensor,
    write: Tensor,
    squares: Tensor | None,
    later: Later | None,
    out: tuple[Tensor, Tensor],
) -> None:
    """Gradient of a write from that of its scaled matrices (without squares: of itself), into `out` and rounded.

    The first place of `out` may be that of the later write's gradient.
    """
    parts, matrices, size = parts_of(write), write.shape[:3].numel(), write.shape[-1] ** 2
    dots = write
    if squares is not None:
        dots = torch.empty_like(squares)
        _dot[(matrices, parts)](grad, write, dots, SIZE=size, BLOCK=_ENTRIES, num_warps=8)
    after, beta, d_beta = later or Later(write, None, None)
    to, low = out
    _write_backward[(matrices, parts)](
        grad, write, write if squares is None else squares, dots, after, after if beta is None else beta, to, low,
        to if d_beta is None else d_beta, NORM_EPS, SIZE=size, BLOCK=_ENTRIES, PARTS=parts,
        WIDTH=next_power_of_2(parts), HAS_MUON=squares is not None, HAS_LATER=later is not None,
        HAS_BETA=beta is not None, num_warps=8,
    )  # fmt: skip


def _backward_products(shape: torch.Size, work: torch.dtype, device: torch.device) -> Products:
    steps = len(COEFFICIENTS)
    x, gram, poly = (torch.empty(steps, *shape, dtype=work, device=device) for _ in range(3))
    first, second, s, d = (torch.empty(shape, dtype=work, device=device) for _ in range(4))
    how, half, whole = launches(shape, work)
    halved, grid = multiply_launch(how, whole)
    narrow = how | {"K": min(32, how["K"])}  # twice the operands

    def run() -> Tensor:
        for n, (a, b, c) in enumerate(COEFFICIENTS):
            _square[half](x[n], gram[n], 0.0, 1.0, HAS_SUM=False, **how)
            _square[half](gram[n], poly[n], b, c, HAS_SUM=True, **how)
            if n + 1 < steps:
                _multiply[grid](poly[n], x[n], x[n + 1], a, **halved)
        g, other = first, second
        for n in reversed(range(steps)):
            a, b, c = COEFFICIENTS[n]
            _symmetric[half](g, x[n], s, s, 0.0, 1.0, HAS_SUM=False, **narrow)
            _symmetric[half](s, gram[n], s, d, b, c, HAS_SUM=True, **narrow)
            _multiply_two[whole](poly[n], g, d, x[n], other, a, **narrow)
            g, other = other, g
        return g

    return Products((x[0], first), run)
