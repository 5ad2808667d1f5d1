"""Triton for `tower_attention`: full attention over a few hundred keys, where padding would cost a third.

Keys are cut into full blocks, which need no mask, and a smaller block of what is left, which comes first: its loads
wait together with those of the queries. Queries are cut into full tiles and a smaller last one.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# Kernels are Triton's language, which has no types of Python's.
from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from spatial_ttt.model.kernels.sizes import cdiv, next_power_of_2


@triton.jit
def _rows(base, at, d, count, MASKED: tl.constexpr, STRIDE: tl.constexpr, DIM: tl.constexpr):
    """Rows `at` of a head [.., DIM] as a tile; with a mask those from `count` on are zero."""
    to = base + at[:, None] * STRIDE + d[None, :]
    if MASKED:
        tile = tl.load(to, mask=(at < count)[:, None] & (d < DIM)[None, :], other=0.0)
    elif d.shape[0] != DIM:
        tile = tl.load(to, mask=(d < DIM)[None, :], other=0.0)
    else:
        tile = tl.load(to)
    return tile


@triton.jit
def _sums(p):
    """Partial sums of shares [M, N] by row, [M, 8]: each thread adds up what it holds."""
    return tl.sum(tl.reshape(p, (p.shape[0], p.shape[1] // 8, 8)), 1)


@triton.jit
def _over(
    tokens, k, v, patches, scale, HEADS: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr, N: tl.constexpr,
    TAIL: tl.constexpr, CAREFUL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of queries over all keys: weighted values [M, D] and weights [M, 8], which are still to be added.

    Weights are relative to the highest score among the first keys, or (careful) among all keys so far.
    """
    stride: tl.constexpr = 3 * HEADS * DIM
    d = tl.arange(0, D)
    full = (patches - 1) // N * N
    last = full + tl.arange(0, TAIL)
    last_key = _rows(k, last, d, patches, True, stride, DIM)
    last_value = _rows(v, last, d, patches, True, stride, DIM)
    last_s = tl.dot(tokens, tl.trans(last_key), input_precision=PRECISION)
    last_s = tl.where((last < patches)[None, :], last_s * scale, float("-inf"))
    peak = tl.max(last_s, 1)
    last_p = tl.exp2(last_s - peak[:, None])
    norm = _sums(last_p)
    acc = tl.dot(last_p.to(last_value.dtype), last_value, input_precision=PRECISION)
    for begin in tl.range(0, full, N):
        at = begin + tl.arange(0, N)
        key = _rows(k, at, d, patches, False, stride, DIM)
        value = _rows(v, at, d, patches, False, stride, DIM)
        s = tl.dot(tokens, tl.trans(key), input_precision=PRECISION)
        if CAREFUL:
            highest = tl.maximum(peak, tl.max(s, 1) * scale)
            fade = tl.exp2(peak - highest)[:, None]
            acc, norm, peak = acc * fade, norm * fade, highest
        p = tl.exp2(s * scale - peak[:, None])
        norm += _sums(p)
        acc = tl.dot(p.to(value.dtype), value, acc, input_precision=PRECISION)
    return acc, tl.sum(norm, 1)


@triton.jit
def _tile(
    q, k, v, out, first, patches, scale, HEADS: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr, M: tl.constexpr,
    N: tl.constexpr, TAIL: tl.constexpr, IS_LAST: tl.constexpr, CAREFUL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Queries first .. first + M - 1 of one head over all its keys."""
    stride: tl.constexpr = 3 * HEADS * DIM
    d = tl.arange(0, D)
    row = first + tl.arange(0, M)
    tokens = _rows(q, row, d, patches, IS_LAST, stride, DIM)
    acc, norm = _over(
        tokens, k, v, patches, scale, HEADS, DIM, D, N, TAIL, CAREFUL, PRECISION
    )  # fmt: skip
    if not CAREFUL:  # noqa: SIM102 - decided when compiling
        # Another key's score may lie so far above those of the first that its weight overflows: once more.
        if tl.max(norm, 0) > 1e30:
            acc, norm = _over(
                tokens, k, v, patches, scale, HEADS, DIM, D, N, TAIL, True, PRECISION
            )  # fmt: skip
    done = (acc * (1.0 / norm)[:, None]).to(out.dtype.element_ty)
    to = out + row[:, None] * (HEADS * DIM) + d[None, :]
    if IS_LAST:
        tl.store(to, done, mask=(row < patches)[:, None] & (d < DIM)[None, :])
    elif D != DIM:
        tl.store(to, done, mask=(d < DIM)[None, :])
    else:
        tl.store(to, done)


@triton.jit(do_not_specialize=["patches", "tiles"])
def _attend_slots(
    qkv, out, patches, tiles, scale, HEADS: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr, M: tl.constexpr,
    LAST: tl.constexpr, N: tl.constexpr, TAIL: tl.constexpr, CAREFUL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of queries of one head; a head's tiles follow each other, so that they share its keys in the cache.

    M queries a tile, LAST in the last one (0: all are full); TAIL keys hold the last of each head, N or fewer.
    """
    tile = tl.program_id(0) % tiles
    row = tl.program_id(0) // tiles
    slot, head = row // HEADS, row % HEADS
    start = slot.to(tl.int64) * patches
    q = qkv + start * (3 * HEADS * DIM) + head * DIM
    k, v = q + HEADS * DIM, q + 2 * HEADS * DIM
    out += start * (HEADS * DIM) + head * DIM
    if LAST == 0:
        _tile(
            q, k, v, out, tile * M, patches, scale, HEADS, DIM, D, M, N, TAIL, False, CAREFUL, PRECISION
        )  # fmt: skip
    elif LAST == M:
        _tile(
            q, k, v, out, tile * M, patches, scale, HEADS, DIM, D, M, N, TAIL, True, CAREFUL, PRECISION
        )  # fmt: skip
    elif tile < tiles - 1:
        _tile(
            q, k, v, out, tile * M, patches, scale, HEADS, DIM, D, M, N, TAIL, False, CAREFUL, PRECISION
        )  # fmt: skip
    else:
        _tile(
            q, k, v, out, tile * M, patches, scale, HEADS, DIM, D, LAST, N, TAIL, True, CAREFUL, PRECISION
        )  # fmt: skip


class Tiles(NamedTuple):
    """How the work is cut."""

    rows: int
    keys: int
    warps: int
    stages: int
    least: int = 64
    """Rows of the smallest last tile: fewer than 64 do without the products of warp groups."""
    careful: bool = False
    """Weights follow the highest score from block to block, instead of only where the first block misleads."""


def tiles_of(patches: int, channels: int, dtype: torch.dtype) -> Tiles:
    """For slots of so many patches and heads of so many channels, a power of two."""
    if dtype == torch.float32:
        return Tiles(16 if channels > 64 else 32, 32, 4, 2, least=16, careful=True)
    if channels > 64:
        return Tiles(128, 64, 8, 2) if patches >= 128 else Tiles(64, 32, 4, 2)
    return Tiles(128, 64, 4, 3) if patches >= 128 else Tiles(64, 32, 4, 2)


def attend(qkv: Tensor, num_heads: int, *, tiles: Tiles | None = None) -> Tensor:
    """See `tower_attention.attend`."""
    slots, patches, width = qkv.shape
    dim = width // (3 * num_heads)
    wide = max(16, next_power_of_2(dim))
    tiles = tiles or tiles_of(patches, wide, qkv.dtype)
    left, short = (patches - 1) % tiles.keys + 1, patches % tiles.rows
    last = min(tiles.rows, max(tiles.least, next_power_of_2(short))) if short else 0
    count = cdiv(patches, tiles.rows)
    out = qkv.new_empty(slots, patches, num_heads * dim)
    _attend_slots[(count * slots * num_heads,)](
        qkv, out, patches, count, dim**-0.5 * math.log2(math.e), HEADS=num_heads, DIM=dim, D=wide, M=tiles.rows,
        LAST=last, N=tiles.keys, TAIL=max(16, next_power_of_2(left)), CAREFUL=tiles.careful,
        PRECISION="ieee" if qkv.dtype == torch.float32 else "tf32", num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    return out
