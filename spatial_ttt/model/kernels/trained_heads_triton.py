"""Triton for the gradients of `trained_heads`: every token is read once, sums over tokens come from a second launch.

Norms are made again from the projections. Inside float32; gradients are rounded where they are stored.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator,assignment,var-annotated,unreachable"
# Kernels are Triton's language, which has no types of Python's.
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from spatial_ttt.model.kernels.shaping_triton import inverse_rms, normed, turned
from spatial_ttt.model.kernels.sizes import cdiv, next_power_of_2, unit_last

if TYPE_CHECKING:
    from spatial_ttt.model.kernels.shaping import HeadNorms

_TOKENS = 16  # tokens of one head that a program takes at once
_SHARE = 128  # tokens of one head that a program takes
_COLUMNS, _LINES = 16, 512  # of parts that a program adds up at once


@triton.jit
def _halves(of, at, mask, HALF: tl.constexpr):
    """Both halves of heads in float32."""
    x, y = tl.load(of + at, mask=mask, other=0.0), tl.load(of + HALF + at, mask=mask, other=0.0)
    return x.to(tl.float32), y.to(tl.float32)


@triton.jit
def _store_sums(to, x, y, c, channel, HALF: tl.constexpr):
    """Sums over tokens of both halves of a head."""
    tl.store(to + c, tl.sum(x, axis=0), mask=channel)
    tl.store(to + HALF + c, tl.sum(y, axis=0), mask=channel)


@triton.jit
def _normed_head(
    x_of, out_of, turned_of, angle_of, fast_of, steps, begin, rows, length, weight, scale_of, norm_part, scale_part,
    eps, width, HALF: tl.constexpr, BLOCK: tl.constexpr, TOKENS: tl.constexpr, SHARE: tl.constexpr,
    COPIES: tl.constexpr,
):  # fmt: skip
    """One head of queries or keys of SHARE tokens: its projections' gradient, and parts of the weights' gradients.

    Pointers are to the head's first channel, `steps` from row to row and token to token: of x, the turned head's
    gradient, the angles, the COPIES of the head that the fast branch reads, the result. Scales lie `width` before
    offsets.
    """
    c = tl.arange(0, BLOCK)
    channel = c < HALF
    w_x = tl.load(weight + c, mask=channel, other=0.0)[None, :]
    w_y = tl.load(weight + HALF + c, mask=channel, other=0.0)[None, :]
    of_x = tl.zeros((TOKENS, BLOCK), tl.float32)
    of_y = tl.zeros((TOKENS, BLOCK), tl.float32)
    sums = ()
    for _ in tl.static_range(4 * COPIES):
        sums += (tl.zeros((TOKENS, BLOCK), tl.float32),)
    for first in tl.range(begin, tl.minimum(begin + SHARE, rows), TOKENS, num_stages=1):
        row = first + tl.arange(0, TOKENS)
        batch, token = (row // length).to(tl.int64)[:, None], (row % length).to(tl.int64)[:, None]
        mask = (row < rows)[:, None] & channel[None, :]
        x, y = _halves(x_of, batch * steps[0] + token * steps[1] + c[None, :], mask, HALF)
        at = batch * steps[2] + token * steps[3] + c[None, :]
        t_x, t_y = _halves(turned_of, at, mask, HALF)
        at = batch * steps[4] + token * steps[5] + c[None, :]
        cos, sin = _halves(angle_of, at, mask, HALF)
        at = batch * steps[6] + token * steps[7] + c[None, :]
        fast = ()
        for copy in tl.static_range(COPIES):
            fast += _halves(fast_of + copy * 2 * HALF, at, mask, HALF)
        scale = inverse_rms(x, y, eps, 2 * HALF)
        n_x = normed(x, scale, w_x).to(tl.float32)
        n_y = normed(y, scale, w_y).to(tl.float32)
        g_x, g_y = turned(t_x, t_y, cos, -sin)
        found = ()
        for copy in tl.static_range(COPIES):
            f_x, f_y = fast[copy * 2], fast[copy * 2 + 1]
            by_x, by_y = _halves(scale_of + copy * 2 * HALF, c[None, :], channel[None, :], HALF)
            g_x += f_x * by_x
            g_y += f_y * by_y
            found += (sums[copy * 4] + f_x * n_x, sums[copy * 4 + 1] + f_y * n_y)
            found += (sums[copy * 4 + 2] + f_x, sums[copy * 4 + 3] + f_y)
        sums = found
        x, y = x * scale[:, None], y * scale[:, None]
        of_x += g_x * x
        of_y += g_y * y
        g_x, g_y = g_x * w_x.to(tl.float32), g_y * w_y.to(tl.float32)
        along = (tl.sum(g_x * x, axis=1) + tl.sum(g_y * y, axis=1))[:, None] / (2 * HALF)
        to = out_of + batch * steps[8] + token * steps[9] + c[None, :]
        dtype = out_of.dtype.element_ty
        tl.store(to, ((g_x - x * along) * scale[:, None]).to(dtype), mask=mask)
        tl.store(to + HALF, ((g_y - y * along) * scale[:, None]).to(dtype), mask=mask)
    _store_sums(norm_part, of_x, of_y, c, channel, HALF)
    for copy in tl.static_range(COPIES):
        to = scale_part + copy * 2 * HALF
        _store_sums(to, sums[copy * 4], sums[copy * 4 + 1], c, channel, HALF)
        _store_sums(to + width, sums[copy * 4 + 2], sums[copy * 4 + 3], c, channel, HALF)


@triton.jit
def _value_head(
    out_of, value_of, fast_of, steps, begin, rows, length, DIM: tl.constexpr, BLOCK: tl.constexpr,
    TOKENS: tl.constexpr, SHARE: tl.constexpr, COPIES: tl.constexpr,
):  # fmt: skip
    """One head of values, which only add up: their own gradient and those of COPIES. Steps as in `_normed_head`."""
    c = tl.arange(0, BLOCK)[None, :]
    for first in tl.range(begin, tl.minimum(begin + SHARE, rows), TOKENS, num_stages=1):
        row = first + tl.arange(0, TOKENS)
        batch, token = (row // length).to(tl.int64)[:, None], (row % length).to(tl.int64)[:, None]
        mask = (row < rows)[:, None] & (c < DIM)
        at = batch * steps[2] + token * steps[3] + c
        given = tl.load(value_of + at, mask=mask, other=0.0)
        found = given.to(tl.float32)
        at = batch * steps[6] + token * steps[7] + c
        for copy in tl.static_range(COPIES):
            found += tl.load(fast_of + copy * DIM + at, mask=mask, other=0.0).to(tl.float32)
        at = batch * steps[8] + token * steps[9] + c
        tl.store(out_of + at, found.to(given.dtype), mask=mask)


@triton.jit(do_not_specialize=["rows", "length"])
def _heads_backward(
    qkv, rope, q_weight, k_weight, scales, d_q, d_k, d_v, d_fast, d_qkv, parts, rows, length, qkv_b, qkv_l, rope_b,
    rope_l, q_b, q_h, q_l, k_b, k_h, k_l, v_b, v_h, v_l, fast_b, fast_l, out_b, out_l, eps, HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr, TOKENS: tl.constexpr, SHARE: tl.constexpr,
    HAS_FAST: tl.constexpr,
):  # fmt: skip
    """One head of SHARE tokens. A row of `parts` has sums for `scales` [4, D], if there are, then for each head's norm.

    Heads of the same tokens, which lie side by side, follow each other.
    """
    total: tl.constexpr = HEADS + 2 * KV_HEADS
    dim: tl.constexpr = 2 * HALF
    groups: tl.constexpr = HEADS // KV_HEADS
    width: tl.constexpr = HEADS * dim
    table: tl.constexpr = 4 * width * HAS_FAST
    head = tl.program_id(0) % total
    part = tl.program_id(0) // total
    begin = part * SHARE
    x_of, out_of = qkv + head * dim, d_qkv + head * dim
    parts += part.to(tl.int64) * (table + (HEADS + KV_HEADS) * dim)
    norm_part = parts + table + head * dim
    if head < HEADS:
        steps = (qkv_b, qkv_l, q_b, q_l, rope_b, rope_l, fast_b, fast_l, out_b, out_l)
        _normed_head(
            x_of, out_of, d_q + head * q_h, rope, d_fast + head * dim, steps, begin, rows, length, q_weight,
            scales + head * dim, norm_part, parts + head * dim, eps, width, HALF, BLOCK, TOKENS, SHARE, HAS_FAST,
        )  # fmt: skip
    elif head < HEADS + KV_HEADS:
        kv = head - HEADS
        own = kv * (groups * dim)  # of the fast branch's keys
        steps = (qkv_b, qkv_l, k_b, k_l, rope_b, rope_l, fast_b, fast_l, out_b, out_l)
        _normed_head(
            x_of, out_of, d_k + kv * k_h, rope, d_fast + width + own, steps, begin, rows, length, k_weight,
            scales + 2 * width + own, norm_part, parts + 2 * width + own, eps, width, HALF, BLOCK, TOKENS, SHARE,
            groups * HAS_FAST,
        )  # fmt: skip
    else:
        kv = head - HEADS - KV_HEADS
        own = kv * (groups * dim)
        steps = (qkv_b, qkv_l, v_b, v_l, rope_b, rope_l, fast_b, fast_l, out_b, out_l)
        _value_head(
            out_of, d_v + kv * v_h, d_fast + 2 * width + own, steps, begin, rows, length, dim, 2 * BLOCK, TOKENS,
            SHARE, groups * HAS_FAST,
        )  # fmt: skip


@triton.jit(do_not_specialize=["count"])
def _add_parts(
    parts, out, count, TABLE: tl.constexpr, DIM: tl.constexpr, HEADS: tl.constexpr, KV_HEADS: tl.constexpr,
    LINES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Some columns of the sum of `count` parts: TABLE columns as they are, then norms of queries and keys, by heads."""
    tables: tl.constexpr = (TABLE + COLUMNS - 1) // COLUMNS
    per_norm: tl.constexpr = (DIM + COLUMNS - 1) // COLUMNS
    step: tl.constexpr = TABLE + (HEADS + KV_HEADS) * DIM
    block = tl.program_id(0) - tables
    is_table, is_query = block < 0, block < per_norm
    column = tl.where(is_table, block + tables, tl.where(is_query, block, block - per_norm))
    column = column * COLUMNS + tl.arange(0, COLUMNS)
    mask = column < tl.where(is_table, TABLE, DIM)
    lines = tl.where(is_table, 1, tl.where(is_query, HEADS, KV_HEADS))  # in each part
    source = parts + tl.where(is_table, 0, tl.where(is_query, TABLE, TABLE + HEADS * DIM)) + column
    sums = tl.zeros((LINES, COLUMNS), tl.float32)
    for first in tl.range(0, count * lines, LINES, num_stages=1):
        line = first + tl.arange(0, LINES)
        at = (line // lines).to(tl.int64) * step + (line % lines) * DIM
        inside = (line < count * lines)[:, None] & mask[None, :]
        sums += tl.load(source[None, :] + at[:, None], mask=inside, other=0.0)
    to = out + tl.where(is_table, 0, tl.where(is_query, TABLE, TABLE + DIM)) + column
    tl.store(to, tl.sum(sums, axis=0).to(out.dtype.element_ty), mask=mask)


def heads_backward(
    grads: Sequence[Tensor | None],
    qkv: Tensor,
    rope: Tensor,
    norms: HeadNorms,
    kv_heads: int,
    scales: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of qkv, of the norms and of scales [4, D] from those of what `heads` makes."""
    d_q, d_k, d_v, d_fast = (x if x is None else unit_last(x) for x in grads)
    assert d_q is not None and d_k is not None and d_v is not None
    qkv, rope = unit_last(qkv), unit_last(rope)
    batch, length, width = qkv.shape
    dim = rope.shape[-1]
    num = width // dim - 2 * kv_heads
    d_qkv = torch.empty(qkv.shape, dtype=qkv.dtype, device=qkv.device)
    table = 0 if scales is None else scales.numel()
    rows = batch * length
    count = cdiv(rows, _SHARE)
    parts = qkv.new_empty(count, table + (num + kv_heads) * dim, dtype=torch.float32)
    fast = d_q if scales is None or d_fast is None else d_fast
    if rows:
        _heads_backward[(count * (num + 2 * kv_heads),)](
            qkv, rope, norms.query, norms.key, norms.query if scales is None else scales.contiguous(), d_q, d_k, d_v,
            fast, d_qkv, parts, rows, length, *qkv.stride()[:2], *rope.stride()[:2], *d_q.stride()[:3],
            *d_k.stride()[:3], *d_v.stride()[:3], *fast.stride()[:2], *d_qkv.stride()[:2], norms.eps, HEADS=num,
            KV_HEADS=kv_heads, HALF=dim // 2, BLOCK=next_power_of_2(dim // 2), TOKENS=_TOKENS, SHARE=_SHARE,
            HAS_FAST=int(scales is not None), num_warps=4,
        )  # fmt: skip
    sums = qkv.new_empty(table + 2 * dim)
    _add_parts[(cdiv(table, _COLUMNS) + 2 * cdiv(dim, _COLUMNS),)](
        parts, sums, count, TABLE=table, DIM=dim, HEADS=num, KV_HEADS=kv_heads, LINES=_LINES, COLUMNS=_COLUMNS,
        num_warps=8,
    )  # fmt: skip
    of_scales, of_query, of_key = sums.split((table, dim, dim))
    return d_qkv, of_query, of_key, None if scales is None else of_scales.view_as(scales)


@triton.jit(do_not_specialize=["rows", "length"])
def _rates_backward(
    raw, d_lr, d_momentum, d_gate, out, rows, length, step, offset, lr_b, lr_l, lr_c, momentum_b, momentum_l,
    momentum_h, gate_b, gate_l, gate_h, HEADS: tl.constexpr, WIDTH: tl.constexpr, HAS_MOMENTUM: tl.constexpr,
    HAS_GATE: tl.constexpr, BLOCK: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    batch, token = (row // length).to(tl.int64)[:, None], (row % length).to(tl.int64)[:, None]
    c = tl.arange(0, BLOCK)[None, :]
    inside = (row < rows)[:, None] & (c < WIDTH)
    x = tl.load(raw + row.to(tl.int64)[:, None] * step + c, mask=inside, other=0.0).to(tl.float32)
    is_rate = inside & (c < 3 * HEADS)
    at = batch * lr_b + token * lr_l + c * lr_c
    given = tl.load(d_lr + at, mask=is_rate, other=0.0)
    found = given / (1.0 + tl.exp(-x - offset))
    s = 1.0 / (1.0 + tl.exp(-x))
    if HAS_MOMENTUM:
        mine = inside & (c >= 3 * HEADS) & (c < 4 * HEADS)
        at = batch * momentum_b + token * momentum_l + (c - 3 * HEADS) * momentum_h
        given = tl.load(d_momentum + at, mask=mine, other=0.0).to(tl.float32)
        found += given * s * (1.0 - s)
    if HAS_GATE:
        begin: tl.constexpr = WIDTH - HEADS
        at = batch * gate_b + token * gate_l + (c - begin) * gate_h
        given = tl.load(d_gate + at, mask=inside & (c >= begin), other=0.0).to(tl.float32)
        found += given * s * (1.0 + x * (1.0 - s))
    tl.store(
        out + row.to(tl.int64)[:, None] * WIDTH + c, found.to(out.dtype.element_ty), mask=inside
    )


def rates_backward(
    grads: Sequence[Tensor], raw: Tensor, offset: float, num_heads: int, has: tuple[bool, bool]
) -> Tensor:
    """Gradient of raw [B, L, (3..5) heads] from those of what `rates` makes, which may lie anywhere."""
    batch, length, width = raw.shape
    flat = unit_last(raw.flatten(0, 1))
    out = torch.empty(raw.shape, dtype=raw.dtype, device=raw.device)
    rows = batch * length
    if rows:
        _rates_backward[(cdiv(rows, 32),)](
            flat, *grads, out, rows, length, flat.stride(0), offset, *(n for x in grads for n in x.stride()),
            HEADS=num_heads, WIDTH=width, HAS_MOMENTUM=has[0], HAS_GATE=has[1], BLOCK=next_power_of_2(width),
            TOKENS=32, num_warps=4,
        )  # fmt: skip
    return out
