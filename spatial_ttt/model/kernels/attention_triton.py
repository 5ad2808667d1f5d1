"""Attention whose numbers the device knows: how many keys there are, and where they lie, is read from memory.

So one captured launch serves a stream that grows. Keys lie in one buffer or in pages; the queries of a key's head
are packed into one tile; the keys are split among programs, whose parts `_combine` joins by their log-sum-exps.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# Kernels are Triton's language, which has no types of Python's.
from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from spatial_ttt.model.kernels.sizes import cdiv, next_power_of_2

if TYPE_CHECKING:
    from spatial_ttt.model.kernels.attention import Past

_ROWS = 16  # rows that a program of `_combine` takes


@triton.jit
def update(
    acc, peak, norm, q, key, value, seen, scale, MASKED: tl.constexpr, PRECISION: tl.constexpr
):
    """The running softmax of a tile of queries after a tile of keys; without a mask all is visible."""
    s = tl.dot(q, tl.trans(key), input_precision=PRECISION)
    if MASKED:
        s = tl.where(seen, s, float("-inf"))
    highest = tl.maximum(peak, tl.max(s, 1) * scale)
    if MASKED:  # noqa: SIM108 - decided when compiling
        base = tl.where(highest == float("-inf"), 0.0, highest)
    else:
        base = highest
    p = tl.exp2(s * scale - base[:, None])
    fade = tl.exp2(peak - base)
    norm = norm * fade + tl.sum(p, 1)
    acc = tl.dot(p.to(value.dtype), value, acc * fade[:, None], input_precision=PRECISION)
    return acc, highest, norm


@triton.jit
def _blocks(
    acc, peak, norm, q, keys, values, lo, hi, query, scale, MASKED: tl.constexpr, WINDOW: tl.constexpr,
    DIM: tl.constexpr, D: tl.constexpr, N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Keys lo..hi-1 for a tile of queries; without a mask hi - lo is a multiple of N and all is visible."""
    d = tl.arange(0, D)
    n = tl.arange(0, N)
    for at in tl.range(lo, hi, N):
        m = at + n
        inside = m < hi
        there = inside[:, None] & (d < DIM)[None, :]
        to = m[:, None] * DIM + d[None, :]
        if MASKED or D != DIM:
            key = tl.load(keys + to, mask=there, other=0.0)
            value = tl.load(values + to, mask=there, other=0.0)
        else:
            key = tl.load(keys + to)
            value = tl.load(values + to)
        seen = inside[None, :] & (m[None, :] <= query[:, None])
        if WINDOW:
            seen = seen & (m[None, :] > query[:, None] - WINDOW)
        acc, peak, norm = update(acc, peak, norm, q, key, value, seen, scale, MASKED, PRECISION)
    return acc, peak, norm


@triton.jit
def _span(
    acc, peak, norm, q, k, v, table, head, lo, hi, query, scale, PAGE: tl.constexpr, MASKED: tl.constexpr,
    WINDOW: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr, N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """`_blocks` over keys in one buffer, or page by page: a row of the table says where a page's keys and values
    begin, counted from k and v, and how far apart heads are."""
    if PAGE:
        for page in tl.range(lo // PAGE, tl.cdiv(hi, PAGE)):
            begin = page * PAGE
            # The products' sizes keep addresses multiples of 16 bytes, which a loaded number cannot tell.
            step = tl.multiple_of(tl.load(table + page * 3 + 2), 16)
            shift = head * step - begin * DIM
            keys = k + (tl.multiple_of(tl.load(table + page * 3), 16) + shift)
            values = v + (tl.multiple_of(tl.load(table + page * 3 + 1), 16) + shift)
            acc, peak, norm = _blocks(
                acc, peak, norm, q, keys, values, tl.maximum(lo, begin), tl.minimum(hi, begin + PAGE), query, scale,
                MASKED, WINDOW, DIM, D, N, PRECISION,
            )  # fmt: skip
    else:
        acc, peak, norm = _blocks(
            acc, peak, norm, q, k, v, lo, hi, query, scale, MASKED, WINDOW, DIM, D, N, PRECISION,
        )  # fmt: skip
    return acc, peak, norm


@triton.jit
def _queries(tile, length, rows, M: tl.constexpr, APART: tl.constexpr):
    """Of a tile's rows the head within its group, the token and whether it is one; its first and last token."""
    if APART:  # a tile is of one head
        tiles = tl.cdiv(length, M)
        first = tile % tiles * M
        i = first + tl.arange(0, M)
        final = tl.minimum(first + M, length) - 1
        group = tl.zeros((M,), tl.int32) + tile // tiles
        return group, i, i < length, first, final
    r = tile * M + tl.arange(0, M)
    last = tl.minimum(tile * M + M, rows) - 1
    is_one = tile * M // length == last // length
    first = tl.where(is_one, tile * M % length, 0)
    final = tl.where(is_one, last % length, length - 1)
    return r // length, r % length, r < rows, first, final


@triton.jit
def _reach(low, high, split, splits, WINDOW: tl.constexpr, N: tl.constexpr):
    """The keys that queries who see up to keys low .. high read in a share: from begin to stop, without a mask from
    open_from to open_to."""
    lo = 0
    if WINDOW:
        lo = tl.maximum(low - WINDOW + 1, 0) // N * N
    share = tl.cdiv(tl.cdiv(high + 1 - lo, N), splits) * N
    begin = lo + split * share
    stop = tl.maximum(begin, tl.minimum(high + 1, begin + share))
    open_from = begin
    if WINDOW:
        open_from = tl.minimum(tl.maximum(tl.cdiv(high - WINDOW + 1, N) * N, begin), stop)
    open_to = tl.maximum(tl.minimum((low + 1) // N * N, stop), open_from)
    return begin, open_from, open_to, stop


@triton.jit(do_not_specialize=["past", "length"])
def _attend(
    q, k, v, table, numbers, out, parts, sums, past, length, q_b, q_h, q_l, k_b, k_h, scale, KV: tl.constexpr,
    GROUPS: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr, WINDOW: tl.constexpr, PAGE: tl.constexpr,
    COUNTED: tl.constexpr, IS_SPLIT: tl.constexpr, APART: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of M packed queries of one key head, over one share of its keys.

    Keys are counted from the first that counts; query i of `length` sees keys up to past + i.
    """
    tile = tl.program_id(0)
    row = tl.program_id(1)
    split = tl.program_id(2)
    batch, kv = (row // KV).to(tl.int64), (row % KV).to(tl.int64)
    before = past
    if COUNTED:
        before = tl.load(numbers + 1).to(tl.int32)
    rows = GROUPS * length
    group, i, is_query, first, final = _queries(tile, length, rows, M, APART)
    d = tl.arange(0, D)
    valid = is_query[:, None] & (d < DIM)[None, :]
    from_q = q + batch * q_b + (kv * GROUPS + group)[:, None] * q_h + i[:, None] * q_l + d[None, :]
    tokens = tl.load(from_q, mask=valid, other=0.0)
    query = before + i
    begin, open_from, open_to, stop = _reach(
        before + first, before + final, split, tl.num_programs(2), WINDOW, N
    )
    head = row.to(tl.int64)
    if not PAGE:
        shift = batch * k_b + kv * k_h
        if COUNTED:
            shift += tl.load(numbers) * DIM
        k += shift
        v += shift
    acc = tl.zeros((M, D), tl.float32)
    peak = tl.full((M,), float("-inf"), tl.float32)
    norm = tl.zeros((M,), tl.float32)
    if WINDOW:
        acc, peak, norm = _span(
            acc, peak, norm, tokens, k, v, table, head, begin, open_from, query, scale, PAGE, True, WINDOW, DIM, D,
            N, PRECISION,
        )  # fmt: skip
    acc, peak, norm = _span(
        acc, peak, norm, tokens, k, v, table, head, open_from, open_to, query, scale, PAGE, False, WINDOW, DIM, D, N,
        PRECISION,
    )  # fmt: skip
    acc, peak, norm = _span(
        acc, peak, norm, tokens, k, v, table, head, open_to, stop, query, scale, PAGE, True, WINDOW, DIM, D, N,
        PRECISION,
    )  # fmt: skip
    done = acc / tl.where(norm > 0, norm, 1.0)[:, None]
    if not IS_SPLIT:
        at = ((batch * length + i) * KV + kv) * GROUPS + group
        tl.store(out + at[:, None] * DIM + d[None, :], done.to(out.dtype.element_ty), mask=valid)
    else:
        at = (split.to(tl.int64) * tl.num_programs(1) + row) * rows + group * length + i
        tl.store(parts + at[:, None] * DIM + d[None, :], done, mask=valid)
        tl.store(sums + at, tl.where(norm > 0, peak + tl.log2(norm), float("-inf")), mask=is_query)


@triton.jit(do_not_specialize=["length"])
def _combine(
    parts, sums, out, length, KV: tl.constexpr, GROUPS: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr,
    SPLITS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1)
    batch, kv = (row // KV).to(tl.int64), (row % KV).to(tl.int64)
    rows = GROUPS * length
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, D)
    place = row.to(tl.int64) * rows + r
    step = tl.num_programs(1).to(tl.int64) * rows
    peak = tl.full((ROWS,), float("-inf"), tl.float32)
    for split in tl.static_range(SPLITS):
        lse = tl.load(sums + split * step + place, mask=r < rows, other=float("-inf"))
        peak = tl.maximum(peak, lse)
    peak = tl.where(peak == float("-inf"), 0.0, peak)
    norm = tl.zeros((ROWS,), tl.float32)
    acc = tl.zeros((ROWS, D), tl.float32)
    for split in tl.static_range(SPLITS):
        lse = tl.load(sums + split * step + place, mask=r < rows, other=float("-inf"))
        weight = tl.exp2(lse - peak)
        there = (weight > 0)[:, None] & (d < DIM)[None, :]
        part = tl.load(
            parts + (split * step + place)[:, None] * DIM + d[None, :], mask=there, other=0.0
        )
        norm += weight
        acc += weight[:, None] * part
    done = acc / tl.where(norm > 0, norm, 1.0)[:, None]
    at = ((batch * length + r % length) * KV + kv) * GROUPS + r // length
    inside = (r < rows)[:, None] & (d < DIM)[None, :]
    tl.store(out + at[:, None] * DIM + d[None, :], done.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["length"])
def _append(
    k, v, keys, values, table, numbers, length, k_b, k_h, v_b, v_h, to_b, to_h, KV: tl.constexpr, DIM: tl.constexpr,
    D: tl.constexpr, PAGE: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """New keys and values go after those that are there."""
    i = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    row = tl.program_id(1).to(tl.int64)
    batch, kv = row // KV, row % KV
    d = tl.arange(0, D)
    inside = (i < length)[:, None] & (d < DIM)[None, :]
    new_k = tl.load(
        k + batch * k_b + kv * k_h + i[:, None] * DIM + d[None, :], mask=inside, other=0.0
    )
    new_v = tl.load(
        v + batch * v_b + kv * v_h + i[:, None] * DIM + d[None, :], mask=inside, other=0.0
    )
    at = tl.load(numbers) + tl.load(numbers + 1) + i  # int64
    if PAGE:
        page = table + at // PAGE * 3
        step = row * tl.load(page + 2, mask=i < length, other=0) + at % PAGE * DIM
        to_k = tl.load(page, mask=i < length, other=0) + step
        to_v = tl.load(page + 1, mask=i < length, other=0) + step
    else:
        to_k = batch * to_b + kv * to_h + at * DIM
        to_v = to_k
    tl.store(keys + to_k[:, None] + d[None, :], new_k, mask=inside)
    tl.store(values + to_v[:, None] + d[None, :], new_v, mask=inside)


class Tiles(NamedTuple):
    """How the work is cut; found by measurement (benchmarks/attention.py)."""

    rows: int
    keys: int
    warps: int
    stages: int


def tiles_of(rows: int, dtype: torch.dtype, window: int = 0) -> Tiles:
    """For so many packed queries of one key head."""
    if dtype == torch.float32:
        return Tiles(32, 32, 4, 2)
    if rows <= 64:
        return Tiles(max(16, next_power_of_2(rows)), 64, 4, 3)
    return Tiles(64, 64, 4, 3) if window and rows >= 1024 else Tiles(128, 64, 8, 3)


def attend(
    q: Tensor,
    past: Past,
    num_past: int,
    *,
    window: int = 0,
    waves: int = 1,
    tiles: Tiles | None = None,
) -> Tensor:
    """See `attention.attend`."""
    batch, num, length, dim = q.shape
    kv = past.keys.shape[1]
    rows = num // kv * length
    tiles = tiles or tiles_of(rows, q.dtype, window)
    if past.page:
        tiles = tiles._replace(keys=min(tiles.keys, past.page))  # none may lie on two pages
    # A tile with the last of one head and the first of the next would read all keys instead of two windows.
    is_apart = window > 0 and length >= 2 * tiles.rows
    blocks = num // kv * cdiv(length, tiles.rows) if is_apart else cdiv(rows, tiles.rows)
    splits = max(1, min(32, waves * _processors(q.device) // (blocks * batch * kv)))
    out = q.new_empty(batch, length, num * dim)
    parts = sums = out
    if splits > 1:
        parts = q.new_empty(splits, batch * kv, rows, dim, dtype=torch.float32)
        sums = parts.new_empty(splits, batch * kv, rows)
    shape = {"KV": kv, "GROUPS": num // kv, "DIM": dim, "D": max(16, next_power_of_2(dim))}
    _attend[(blocks, batch * kv, splits)](
        q, past.keys, past.values, out if past.table is None else past.table,
        out if past.numbers is None else past.numbers, out, parts, sums, num_past, length, *q.stride()[:3],
        *past.strides, dim**-0.5 * math.log2(math.e), **shape, WINDOW=window, PAGE=past.page,
        COUNTED=past.numbers is not None, IS_SPLIT=splits > 1, APART=is_apart, M=tiles.rows, N=tiles.keys,
        PRECISION="ieee" if q.dtype == torch.float32 else "tf32", num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    if splits > 1:
        _combine[(cdiv(rows, _ROWS), batch * kv)](
            parts, sums, out, length, **shape, SPLITS=splits, ROWS=_ROWS, num_warps=4
        )
    return out


def append(k: Tensor, v: Tensor, past: Past) -> None:
    """See `attention.append`."""
    batch, kv, length, dim = k.shape
    k, v = (x if x.stride()[2:] == (dim, 1) else x.contiguous() for x in (k, v))
    _append[(cdiv(length, 16), batch * kv)](
        k, v, past.keys, past.values, past.numbers if past.table is None else past.table, past.numbers, length,
        *k.stride()[:2], *v.stride()[:2], *past.strides, KV=kv, DIM=dim,
        D=max(16, next_power_of_2(dim)), PAGE=past.page, TOKENS=16, num_warps=4,
    )  # fmt: skip


@lru_cache(maxsize=16)
def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 8
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
