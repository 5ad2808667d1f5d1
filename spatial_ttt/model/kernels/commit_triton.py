"""Triton for `commit`: a write of wide square fast weights, for streaming.

All matrices of a write, gate, up and down of every head, lie side by side: [B * H, 3, D, D]. `_begin` joins gradient
and momentum, rounds them and sums their squares; of the products of Newton-Schulz `_square` makes half, since they are
symmetric, and the first ones divide by the norm; `_finish` adds the result and gives the rows back their norms.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# Kernels are Triton's language, which has no types of Python's.
from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from spatial_ttt.model.kernels import interpreting
from spatial_ttt.model.kernels.captured import Products
from spatial_ttt.model.kernels.products import product, product_options
from spatial_ttt.model.kernels.sizes import cdiv, next_power_of_2
from spatial_ttt.model.newton_schulz import COEFFICIENTS, NORM_EPS

_ENTRIES = 4096  # of a program that passes over a matrix
_ROWS = 8  # of a program of `_finish`


class Places(NamedTuple):
    """Where three kinds of matrices begin [B, H, D, D] and how far apart neighbours are, in numbers."""

    gate: Tensor
    up: Tensor
    down: Tensor
    step: int


@triton.jit
def _of_kind(kind, gate, up, down):
    place = gate
    if kind == 1:
        place = up
    if kind == 2:
        place = down
    return place


@triton.jit
def _begin(
    g_gate, g_up, g_down, g_step, m_gate, m_up, m_down, m_step, beta_sum, count, out, rounded, squares,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, HAS_MOMENTUM: tl.constexpr, HAS_ROUNDED: tl.constexpr,
):  # fmt: skip
    """write = gradient + beta * momentum, the same rounded, and the sum of its squares in this block."""
    matrix = tl.program_id(0).to(tl.int64)
    head, kind = matrix // 3, matrix % 3
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = at < SIZE
    x = tl.load(_of_kind(kind, g_gate, g_up, g_down) + head * g_step + at, mask=mask, other=0.0)
    if HAS_MOMENTUM:
        beta = tl.load(beta_sum + head) / count
        past = _of_kind(kind, m_gate, m_up, m_down) + head * m_step
        x += beta * tl.load(past + at, mask=mask, other=0.0)
    tl.store(out + matrix * SIZE + at, x, mask=mask)
    if HAS_ROUNDED:
        tl.store(rounded + matrix * SIZE + at, x.to(rounded.dtype.element_ty), mask=mask)
    tl.store(squares + matrix * tl.num_programs(1) + tl.program_id(1), tl.sum(x * x, axis=0))


@triton.jit
def norm_of(squares, matrix, eps, PARTS: tl.constexpr, WIDTH: tl.constexpr):
    """Of a matrix, from the sums of its squares by block."""
    part = tl.arange(0, WIDTH)
    sums = tl.load(squares + matrix * PARTS + part, mask=part < PARTS, other=0.0)
    return tl.sqrt(tl.sum(sums, axis=0)) + eps


@triton.jit
def lower_tile(tile):
    """Row and column of a tile on or below the diagonal: tile = i (i + 1) / 2 + j with j <= i."""
    i = ((tl.sqrt(8.0 * tile.to(tl.float32) + 1.0) - 1.0) * 0.5 + 1e-4).to(tl.int32)
    return i, tile - i * (i + 1) // 2


@triton.jit
def _square(
    a, out, b, c, squares, eps, D: tl.constexpr, M: tl.constexpr, K: tl.constexpr, HAS_SUM: tl.constexpr,
    IS_RAW: tl.constexpr, PARTS: tl.constexpr, WIDTH: tl.constexpr, ROUND: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """c a a' + b a (without the sum: c a a'), which is symmetric: tiles on and below the diagonal, and their mirrors.

    A raw `a` is not yet over its norm.
    """
    i, j = lower_tile(tl.program_id(0))
    matrix = tl.program_id(1).to(tl.int64)
    rows, cols, k = i * M + tl.arange(0, M), j * M + tl.arange(0, M), tl.arange(0, K)
    a += matrix * (D * D)
    out += matrix * (D * D)
    if IS_RAW:
        norm = norm_of(squares, matrix, eps, PARTS, WIDTH)
        c = c / (norm * norm)
    acc = tl.zeros((M, M), tl.float32)
    for start in tl.range(0, D, K):
        left = tl.load(a + rows[:, None] * D + (start + k)[None, :])
        right = tl.load(a + cols[:, None] * D + (start + k)[None, :])
        acc += product(left, tl.trans(right), ROUND, WIDE)
    at = rows[:, None] * D + cols[None, :]
    acc = c * acc
    if HAS_SUM:
        acc += b * tl.load(a + at).to(tl.float32)
    found = acc.to(out.dtype.element_ty)
    tl.store(out + at, found)
    if i != j:
        tl.store(out + cols[:, None] * D + rows[None, :], tl.trans(found))


@triton.jit
def _multiply(
    p, x, out, a, squares, eps, D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
    IS_RAW: tl.constexpr, PARTS: tl.constexpr, WIDTH: tl.constexpr, ROUND: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """p x + a x; a raw x is not yet over its norm."""
    blocks: tl.constexpr = D // N
    matrix = tl.program_id(1).to(tl.int64)
    rows = (tl.program_id(0) // blocks) * M + tl.arange(0, M)
    cols = (tl.program_id(0) % blocks) * N + tl.arange(0, N)
    k = tl.arange(0, K)
    p += matrix * (D * D)
    x += matrix * (D * D)
    by = 1.0
    if IS_RAW:
        by = 1.0 / norm_of(squares, matrix, eps, PARTS, WIDTH)
    acc = tl.zeros((M, N), tl.float32)
    for start in tl.range(0, D, K):
        left = tl.load(p + rows[:, None] * D + (start + k)[None, :])
        right = tl.load(x + (start + k)[:, None] * D + cols[None, :])
        acc += product(left, right, ROUND, WIDE)
    at = rows[:, None] * D + cols[None, :]
    acc = (acc + a * tl.load(x + at).to(tl.float32)) * by
    tl.store(out + matrix * (D * D) + at, acc.to(out.dtype.element_ty))


@triton.jit
def _finish(
    b_gate, b_up, b_down, b_step, delta, norms, total, weights, low, heads, eps, D: tl.constexpr,
    BLOCK: tl.constexpr, ROWS: tl.constexpr, HAS_TOTAL: tl.constexpr,
):  # fmt: skip
    """base + delta; the weights are its rows with the norms [heads, 3, D] of the trained ones, `low` these rounded."""
    matrix = tl.program_id(0).to(tl.int64)
    head, kind = matrix // 3, matrix % 3
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, BLOCK)
    inside = (row < D)[:, None] & (c < D)[None, :]
    at = row[:, None] * D + c[None, :]
    base = _of_kind(kind, b_gate, b_up, b_down) + head * b_step
    x = tl.load(base + at, mask=inside, other=0.0)
    x += tl.load(delta + matrix * (D * D) + at, mask=inside, other=0.0).to(tl.float32)
    if HAS_TOTAL:
        tl.store(total + matrix * (D * D) + at, x, mask=inside)
    target = tl.load(norms + ((head % heads) * 3 + kind) * D + row, mask=row < D, other=0.0)
    x = x / (tl.sqrt(tl.sum(x * x, axis=1)) + eps)[:, None] * target[:, None]
    tl.store(weights + matrix * (D * D) + at, x, mask=inside)
    tl.store(low + matrix * (D * D) + at, x.to(low.dtype.element_ty), mask=inside)


def begin(
    gradient: Places,
    momentum: Places | None,
    beta_sum: Tensor,
    count: int,
    out: Tensor,
    starts: tuple[Tensor, ...] = (),
) -> Tensor:
    """Put gradient + beta_sum / count * momentum into `out` [B, H, 3, D, D]; the squares' sums [matrices, blocks].

    `starts` are the inputs of `newton_schulz_products`, which are filled.
    """
    matrices, size = _sizes(out)
    parts = parts_of(out)
    rounded, squares = starts or (out, out.new_empty(matrices, parts))
    past = gradient if momentum is None else momentum
    _begin[(matrices, parts)](
        *gradient, *past, beta_sum, count, out, rounded, squares, SIZE=size, BLOCK=_ENTRIES,
        HAS_MOMENTUM=momentum is not None, HAS_ROUNDED=bool(starts), num_warps=8,
    )  # fmt: skip
    return squares


def parts_of(stacked: Tensor) -> int:
    """Blocks in which a matrix is passed over."""
    return cdiv(_sizes(stacked)[1], _ENTRIES)


def newton_schulz_products(shape: torch.Size, work: torch.dtype, device: torch.device) -> Products:
    """The fifteen products of Newton-Schulz of matrices [B, H, 3, D, D] and their squares' sums by block.

    The first two divide by the norm: no pass of its own.
    """
    first, second, poly = (torch.empty(shape, dtype=work, device=device) for _ in range(3))
    parts = parts_of(first)
    squares = torch.empty(shape[:3].numel(), parts, device=device)
    how, half, whole = launches(shape, work)
    how |= {"PARTS": parts, "WIDTH": next_power_of_2(parts)}
    halved, grid = multiply_launch(how, whole)
    norms = squares, NORM_EPS

    def run() -> Tensor:
        x, other = first, second
        for step, (a, b, c) in enumerate(COEFFICIENTS):
            is_raw = step == 0
            _square[half](x, other, 0.0, 1.0, *norms, HAS_SUM=False, IS_RAW=is_raw, **how)
            _square[half](other, poly, b, c, *norms, HAS_SUM=True, IS_RAW=False, **how)
            _multiply[grid](poly, x, other, a, *norms, IS_RAW=is_raw, **halved)
            x, other = other, x
        return x

    return Products((first, squares), run)


def launches(shape: torch.Size, work: torch.dtype) -> tuple[dict[str, Any], Any, Any]:
    """Arguments of all products of matrices [B, H, 3, D, D], and the grids of symmetric and of other results."""
    width, matrices = shape[-1], shape[:3].numel()
    tile = tile_of(width)
    blocks = width // tile
    how: dict[str, Any] = {"D": width, "M": tile, "K": min(64, tile), "num_warps": 8, "num_stages": 3}  # fmt: skip
    how |= product_options(work)
    return how, (blocks * (blocks + 1) // 2, matrices), (blocks * blocks, matrices)


def multiply_launch(
    how: dict[str, Any], whole: tuple[int, int]
) -> tuple[dict[str, Any], tuple[int, int]]:
    """Arguments and grid of `_multiply` beside those of `launches`: large tiles are halved, which is faster."""
    if how["M"] < 128:
        return how | {"N": how["M"]}, whole
    return how | {"N": how["M"] // 2, "num_warps": 4}, (2 * whole[0], whole[1])


def finish(
    base: Places,
    delta: Tensor,
    norms: Tensor,
    out: tuple[Tensor | None, Tensor, Tensor],
    eps: float,
) -> None:
    """Put base + delta, its rows with the trained norms [heads, 3, D], and these rounded into `out`.

    All are [B, H, 3, D, D].
    """
    total, weights, low = out
    matrices, _ = _sizes(delta)
    width = delta.shape[-1]
    _finish[(matrices, cdiv(width, _ROWS))](
        *base, delta, norms, weights if total is None else total, weights, low, norms.shape[0], eps, D=width,
        BLOCK=next_power_of_2(width), ROWS=_ROWS, HAS_TOTAL=total is not None, num_warps=4,
    )  # fmt: skip


@triton.jit
def sum_of(place, step, length):
    """The sum of so many numbers, `step` apart, in float32."""
    acc = tl.zeros((1024,), tl.float32)
    for start in tl.range(0, length, 1024):
        at = start + tl.arange(0, 1024)
        acc += tl.load(place + at * step, mask=at < length, other=0.0).to(tl.float32)
    return tl.sum(acc, axis=0)


@triton.jit
def _beta(momentum, past, out, length, stride_b, stride_h, stride_l, heads, HAS_PAST: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    found = sum_of(
        momentum + (row // heads) * stride_b + (row % heads) * stride_h, stride_l, length
    )
    if HAS_PAST:
        found += tl.load(past + row)
    tl.store(out + row, found)


def add_momentum(momentum: Tensor, past: Tensor | None, out: Tensor) -> Tensor:
    """See `commit.add_momentum`."""
    batch, heads, length = momentum.shape
    before = out if past is None else past.contiguous()
    _beta[(batch * heads,)](
        momentum, before, out, length, *momentum.stride(), heads, HAS_PAST=past is not None, num_warps=4
    )  # fmt: skip
    return out


def tile_of(width: int) -> int:
    """Rows of a tile: the largest of 128, 64, 32, 16 that divides the width (0: none does)."""
    largest = 16 if interpreting() else 128
    return next((t for t in (128, 64, 32, 16) if t <= largest and width % t == 0), 0)


def _sizes(stacked: Tensor) -> tuple[int, int]:
    """Matrices, and entries of each."""
    return stacked.shape[:3].numel(), stacked.shape[-1] * stacked.shape[-2]
