"""Attention of blocks of queries, each over its own choice of kept blocks of keys, then causally over its own.

One launch serves all blocks of a piece: a table says where the keys and values of each choice begin.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# Kernels are Triton's language, which has no types of Python's.
from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from spatial_ttt.model.kernels.attention_triton import Tiles, update
from spatial_ttt.model.kernels.sizes import cdiv, next_power_of_2

_FEW = Tiles(16, 16, 4, 1)
_MANY = Tiles(128, 128, 8, 2)


@triton.jit(do_not_specialize=["length", "width"])
def _attend(
    q, base, spans, places, out, length, width, q_b, q_h, q_l, scale, KV: tl.constexpr, GROUPS: tl.constexpr,
    DIM: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of a block's packed queries of one key head. Of BLOCK keys a tile of N takes `per` steps."""
    block = tl.program_id(1)
    row = tl.program_id(2)
    batch, kv = (row // KV).to(tl.int64), (row % KV).to(tl.int64)
    first = tl.load(spans + block * 4)
    count = tl.load(spans + block * 4 + 1)
    kept = tl.load(spans + block * 4 + 2)
    before = tl.load(spans + block * 4 + 3)  # keys of the own block before the first query
    rows = GROUPS * count
    r = tl.program_id(0) * M + tl.arange(0, M)
    group, i = r // count, r % count
    d, n = tl.arange(0, D), tl.arange(0, N)
    valid = (r < rows)[:, None] & (d < DIM)[None, :]
    token = first + i
    from_q = (
        q + batch * q_b + (kv * GROUPS + group)[:, None] * q_h + token[:, None] * q_l + d[None, :]
    )
    tokens = tl.load(from_q, mask=valid, other=0.0)
    is_busy = tl.program_id(0) * M < rows
    per: tl.constexpr = (BLOCK + N - 1) // N
    head = row.to(tl.int64) * (BLOCK * DIM)
    table = places + block * width * 2
    acc = tl.zeros((M, D), tl.float32)
    peak = tl.full((M,), float("-inf"), tl.float32)
    norm = tl.zeros((M,), tl.float32)
    for step in tl.range(0, tl.where(is_busy, kept * per, 0)):
        at = table + (step // per) * 2
        m = (step % per) * N + n
        to = head + m[:, None] * DIM + d[None, :]
        keys = base + tl.multiple_of(tl.load(at), 16)
        values = base + tl.multiple_of(tl.load(at + 1), 16)
        if D == DIM and BLOCK % N == 0:
            key, value = tl.load(keys + to), tl.load(values + to)
        else:
            there = (m < BLOCK)[:, None] & (d < DIM)[None, :]
            key = tl.load(keys + to, mask=there, other=0.0)
            value = tl.load(values + to, mask=there, other=0.0)
        seen = (m < BLOCK)[None, :] & (r >= 0)[:, None]
        acc, peak, norm = update(
            acc, peak, norm, tokens, key, value, seen, scale, BLOCK % N != 0, PRECISION
        )
    own = table + kept * 2
    keys = base + tl.multiple_of(tl.load(own), 16)
    values = base + tl.multiple_of(tl.load(own + 1), 16)
    for start in tl.range(0, tl.where(is_busy, before + count, 0), N):
        m = start + n
        to = head + m[:, None] * DIM + d[None, :]
        there = (m < before + count)[:, None] & (d < DIM)[None, :]
        key = tl.load(keys + to, mask=there, other=0.0)
        value = tl.load(values + to, mask=there, other=0.0)
        seen = (m[None, :] <= (before + i)[:, None]) & (m < before + count)[None, :]
        acc, peak, norm = update(acc, peak, norm, tokens, key, value, seen, scale, True, PRECISION)
    done = acc / tl.where(norm > 0, norm, 1.0)[:, None]
    to = ((batch * length + token) * KV + kv) * GROUPS + group
    tl.store(out + to[:, None] * DIM + d[None, :], done.to(out.dtype.element_ty), mask=valid)


def attend(q: Tensor, base: Tensor, spans: Tensor, places: Tensor, block: int) -> Tensor:
    """q [B, H, L, Dh] in blocks of up to `block` queries -> [B, L, H * Dh].

    `spans` int64 [blocks, 4]: first query, queries, kept blocks of keys, own keys before the first query. `places`
    int64 [blocks, width, 2] says where the kept blocks' keys and values and then the own ones' begin, counted in
    numbers from `base`, which has as many rows Hkv as they; each is [B, Hkv, block, Dh] side by side.
    """
    batch, heads, length, dim = q.shape
    kv = base.shape[1]
    tiles = _MANY if q.device.type == "cuda" and q.dtype != torch.float32 else _FEW
    out = q.new_empty(batch, length, heads * dim)
    grid = (cdiv(heads // kv * block, tiles.rows), spans.shape[0], batch * kv)
    _attend[grid](
        q, base, spans, places, out, length, places.shape[1], *q.stride()[:3], dim**-0.5 * math.log2(math.e), KV=kv,
        GROUPS=heads // kv, DIM=dim, D=max(16, next_power_of_2(dim)), BLOCK=block, M=tiles.rows,
        N=tiles.keys, PRECISION="ieee" if q.dtype == torch.float32 else "tf32", num_warps=tiles.warps,
        num_stages=tiles.stages,
    )  # fmt: skip
    return out
