"""Triton for `wide_scan`: Newton-Schulz of wide matrices and its gradient, the gradient of a write's row norms.

Matrices lie as in `commit_triton`, [B, H, 3, D, D]. A step makes PX of X with P = a + bA + cAA, A = XX'. Its gradient,
for G that of its result, is PG + EX with E = bS + c(SA + AS), S = GX' + XG'. A, P, S and E are symmetric, so half
of their tiles are made here; PX and, P beside E and G above X, PG + EX are one product of the library each. All
products of a pass are one graph on a GPU. Steps that are kept instead of made again: `kept_steps_triton`.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# Kernels are Triton's language, which has no types of Python's.
from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from spatial_ttt.model.kernels.captured import Products, ready
from spatial_ttt.model.kernels.commit_triton import (
    _ENTRIES,
    launches,
    lower_tile,
    norm_of,
    parts_of,
)
from spatial_ttt.model.kernels.products import product
from spatial_ttt.model.kernels.sizes import cdiv, next_power_of_2
from spatial_ttt.model.newton_schulz import COEFFICIENTS, NORM_EPS

_ROWS = 8  # of a program of `_norm_backward`


@triton.jit
def _square(
    a, out, diagonal, b, c, D: tl.constexpr, A_STEP: tl.constexpr, STEP: tl.constexpr, ROW: tl.constexpr,
    M: tl.constexpr, K: tl.constexpr, HAS_SUM: tl.constexpr, ROUND: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """c a a' + b a + diagonal (without the sum: a a'): tiles on and below the diagonal, and their mirrors.

    Matrices of `a` are A_STEP apart, those of `out` STEP, whose rows are ROW apart.
    """
    i, j = lower_tile(tl.program_id(0))
    matrix = tl.program_id(1).to(tl.int64)
    rows, cols, k = i * M + tl.arange(0, M), j * M + tl.arange(0, M), tl.arange(0, K)
    a += matrix * A_STEP
    out += matrix * STEP
    acc = tl.zeros((M, M), tl.float32)
    for start in tl.range(0, D, K):
        left = tl.load(a + rows[:, None] * D + (start + k)[None, :])
        right = tl.load(a + cols[:, None] * D + (start + k)[None, :])
        acc += product(left, tl.trans(right), ROUND, WIDE)
    if HAS_SUM:
        acc = c * acc + b * tl.load(a + rows[:, None] * D + cols[None, :]).to(tl.float32)
        acc += tl.where(rows[:, None] == cols[None, :], diagonal, 0.0)
    found = acc.to(out.dtype.element_ty)
    tl.store(out + rows[:, None] * ROW + cols[None, :], found)
    if i != j:
        tl.store(out + cols[:, None] * ROW + rows[None, :], tl.trans(found))


@triton.jit
def _symmetric(
    a, b, s, out, beta, alpha, D: tl.constexpr, A_STEP: tl.constexpr, B_STEP: tl.constexpr, STEP: tl.constexpr,
    ROW: tl.constexpr, M: tl.constexpr, K: tl.constexpr, HAS_SUM: tl.constexpr, ROUND: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """alpha (a b' + b a') + beta s: tiles on and below the diagonal, and their mirrors. Steps as in `_square`."""
    i, j = lower_tile(tl.program_id(0))
    matrix = tl.program_id(1).to(tl.int64)
    rows, cols, k = i * M + tl.arange(0, M), j * M + tl.arange(0, M), tl.arange(0, K)
    a += matrix * A_STEP
    b += matrix * B_STEP
    out += matrix * STEP
    acc = tl.zeros((M, M), tl.float32)
    # Two loops: with two products in one the compiler lets none run on while operands are loaded.
    for start in tl.range(0, D, K):
        left = tl.load(a + rows[:, None] * D + (start + k)[None, :])
        right = tl.load(b + cols[:, None] * D + (start + k)[None, :])
        acc += product(left, tl.trans(right), ROUND, WIDE)
    for start in tl.range(0, D, K):
        left = tl.load(b + rows[:, None] * D + (start + k)[None, :])
        right = tl.load(a + cols[:, None] * D + (start + k)[None, :])
        acc += product(left, tl.trans(right), ROUND, WIDE)
    acc = alpha * acc
    if HAS_SUM:
        at = matrix * (D * D) + rows[:, None] * D + cols[None, :]
        acc += beta * tl.load(s + at).to(tl.float32)
    found = acc.to(out.dtype.element_ty)
    tl.store(out + rows[:, None] * ROW + cols[None, :], found)
    if i != j:
        tl.store(out + cols[:, None] * ROW + rows[None, :], tl.trans(found))


@triton.jit
def _scale(
    write, squares, out, eps, STEP: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # fmt: skip
    """A matrix over its norm, rounded; matrices of `out` are STEP apart."""
    matrix = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    norm = norm_of(squares, matrix, eps, PARTS, WIDTH)
    x = tl.load(write + matrix * SIZE + at, mask=at < SIZE, other=0.0) / norm
    tl.store(out + matrix * STEP + at, x.to(out.dtype.element_ty), mask=at < SIZE)


@triton.jit
def _norm_backward(
    total, norms, grad, more, out, low, d_norms, heads, eps, D: tl.constexpr, LOW_STEP: tl.constexpr,
    BLOCK: tl.constexpr, ROWS: tl.constexpr, HAS_MORE: tl.constexpr, HAS_LOW: tl.constexpr,
):  # fmt: skip
    """Through rows that were given the trained norms: gradients of `total` [+ more], rounded too, and of the norms.

    Rounded matrices are LOW_STEP apart.
    """
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
        low += matrix * LOW_STEP + row[:, None] * D + c[None, :]
        tl.store(low, found.to(low.dtype.element_ty), mask=inside)


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
    """Newton-Schulz of `write` [B, H, 3, D, D], whose squares' sums by block are `squares`."""
    products = forward_products(write, work)
    scale(write, squares, products.inputs[0])
    return products.run()


def forward_products(like: Tensor, work: torch.dtype) -> Products:
    """Of Newton-Schulz, as one graph on a GPU: the input is the scaled matrices."""
    return ready(_forward_products, like, work)


def backward_products(like: Tensor, work: torch.dtype) -> Products:
    """Of the gradient of Newton-Schulz: inputs are the scaled matrices and the gradient of the result."""
    return ready(_backward_products, like, work)


def scale(write: Tensor, squares: Tensor, out: Tensor) -> None:
    """A matrix over its norm, rounded, into `out` [B, H, 3, D, D], whose matrices may be any distance apart."""
    parts, size = parts_of(write), write.shape[-1] ** 2
    _scale[(write.shape[:3].numel(), parts)](
        write, squares, out, NORM_EPS, STEP=out.stride(2), SIZE=size, BLOCK=_ENTRIES, PARTS=parts,
        WIDTH=next_power_of_2(parts), num_warps=8,
    )  # fmt: skip


def norm_backward(
    total: Tensor,
    norms: Tensor,
    grad: Tensor,
    more: Tensor | None,
    out: tuple[Tensor, Tensor | None, Tensor],
    eps: float,
) -> None:
    """Gradient of `total` [B, H, 3, D, D] + `more` from that of the weights, rounded, and of the norms [B, H, 3, D].

    All go into the places of `out`; the first may be `grad` or `more`, matrices of the second any distance apart.
    """
    to, low, d_norms = out
    width = total.shape[-1]
    _norm_backward[(total.shape[:3].numel(), cdiv(width, _ROWS))](
        total, norms, grad, grad if more is None else more, to, to if low is None else low, d_norms, norms.shape[0],
        eps, D=width, LOW_STEP=0 if low is None else low.stride(2), BLOCK=next_power_of_2(width), ROWS=_ROWS,
        HAS_MORE=more is not None, HAS_LOW=low is not None, num_warps=4,
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


def _forward_products(shape: torch.Size, work: torch.dtype, device: torch.device) -> Products:
    first, second, gram, poly = (torch.empty(shape, dtype=work, device=device) for _ in range(4))
    launch = StepLaunches(shape, work)

    def run() -> Tensor:
        x, other = first, second
        for coefficients in COEFFICIENTS:
            launch.forward(x, (gram, poly, other), coefficients)
            x, other = other, x
        return x

    return Products((first,), run)


def _backward_products(shape: torch.Size, work: torch.dtype, device: torch.device) -> Products:
    steps, width = len(COEFFICIENTS), shape[-1]
    new = partial(torch.empty, dtype=work, device=device)
    left = new(steps, *shape[:3], width, 2 * width)  # P beside E
    right = new(steps, *shape[:3], 2 * width, width)  # G above X
    gram, s, found = new(steps, *shape), new(shape), new(shape)
    launch = StepLaunches(shape, work)
    poly, more = left.split(width, dim=-1)
    g, x = right.split(width, dim=-2)

    def run() -> Tensor:
        for n, coefficients in enumerate(COEFFICIENTS):
            later = x[n + 1] if n + 1 < steps else None
            launch.forward(x[n], (gram[n], poly[n], later), coefficients)
        for n in reversed(range(steps)):
            launch.terms(g[n], x[n], gram[n], (s, more[n]), COEFFICIENTS[n])
            multiply(left[n], right[n], g[n - 1] if n else found)
        return found

    return Products((x[0], g[-1]), run)


class StepLaunches:
    """Launches of a step's products, on matrices [B, H, 3, D, D] in the products' precision."""

    def __init__(self, shape: torch.Size, work: torch.dtype) -> None:
        self.how, self._half, self.whole = launches(shape, work)

    def forward(
        self,
        x: Tensor,
        out: tuple[Tensor, Tensor, Tensor | None],
        coefficients: tuple[float, float, float],
    ) -> None:
        """A, P and, where there is a place for it, PX; X and A are dense, P may lie at any distance."""
        gram, poly, later = out
        self._square(x, gram)
        self._square(gram, poly, coefficients)
        if later is not None:
            multiply(poly, x, later)

    def terms(
        self,
        g: Tensor,
        x: Tensor,
        gram: Tensor,
        out: tuple[Tensor, Tensor],
        coefficients: tuple[float, float, float],
    ) -> None:
        """S and E from G, X and A; S and A are dense, the others may lie at any distance."""
        s, more = out
        self._symmetric(g, x, s)
        self._symmetric(s, gram, more, coefficients)

    def _square(
        self, a: Tensor, out: Tensor, coefficients: tuple[float, float, float] | None = None
    ) -> None:
        """a a', or of A with coefficients P."""
        _square[self._half](
            a, out, *(coefficients or (0.0, 0.0, 1.0)), A_STEP=a.stride(2), STEP=out.stride(2), ROW=out.stride(3),
            HAS_SUM=coefficients is not None, **self.how,
        )  # fmt: skip

    def _symmetric(
        self,
        a: Tensor,
        b: Tensor,
        out: Tensor,
        coefficients: tuple[float, float, float] | None = None,
    ) -> None:
        """a b' + b a', or of S and A with coefficients E."""
        _, beta, alpha = coefficients or (0.0, 0.0, 1.0)
        _symmetric[self._half](
            a, b, a, out, beta, alpha, A_STEP=a.stride(2), B_STEP=b.stride(2), STEP=out.stride(2),
            ROW=out.stride(3), HAS_SUM=coefficients is not None, **self.how,
        )  # fmt: skip


def multiply(a: Tensor, b: Tensor, out: Tensor) -> None:
    """out = a @ b of [B, H, 3, N, K] and [B, H, 3, K, M], whose matrices lie at equal distances."""
    torch.bmm(a.flatten(0, 2), b.flatten(0, 2), out=out.flatten(0, 2))
