"""Triton for `shaping`: memory-bound passes, float32 inside, rounded where the plain code rounds."""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# Kernels are Triton's language, which has no types of Python's.
from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from spatial_ttt.model.kernels.sizes import cdiv, next_power_of_2, unit_last

if TYPE_CHECKING:
    from spatial_ttt.model.kernels.shaping import HeadNorms

_TOKENS = 16  # tokens of one head that a program takes


@triton.jit
def normed(x, scale, weight):
    """weight * (x * scale), rounded after each product as the plain norm does."""
    dtype = weight.dtype
    rounded = (x * scale[:, None]).to(dtype).to(tl.float32)
    return (weight.to(tl.float32) * rounded).to(dtype)


@triton.jit
def inverse_rms(x, y, eps, SIZE: tl.constexpr):
    """One over the root mean square of each row, whose SIZE channels are the columns of x and y [tokens, half]."""
    mean = (tl.sum(x * x, axis=1) + tl.sum(y * y, axis=1)) / SIZE
    return 1.0 / tl.sqrt(mean + eps)


@triton.jit
def turned(x, y, cos, sin):
    """Channels x and their partners y turned by the angle; by -sin back."""
    return x * cos - y * sin, y * cos + x * sin


@triton.jit
def _scaled(x, scale, offset):
    rounded = (x.to(tl.float32) * scale.to(tl.float32)).to(x.dtype).to(tl.float32)
    return (rounded + offset.to(tl.float32)).to(x.dtype)


@triton.jit
def _store_scaled(place, scales, width, c, channel, inside, x):
    """Store x * scale + offset per channel; the offsets lie `width` after the scales."""
    by = tl.load(scales + c, mask=channel, other=0.0)[None, :]
    shift = tl.load(scales + width + c, mask=channel, other=0.0)[None, :]
    tl.store(place, _scaled(x, by, shift), mask=inside)


@triton.jit
def _store_halves(place, half, first, second, inside):
    tl.store(place, first, mask=inside)
    tl.store(place + half, second, mask=inside)


@triton.jit(do_not_specialize=["rows", "length", "room", "zeros"])
def _heads(
    qkv, rope, q_weight, k_weight, scales, out_q, out_k, out_v, fast, rows, length, room, zeros, stride_b, stride_l,
    rope_b, rope_l, eps, HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
    TOKENS: tl.constexpr, TOTAL: tl.constexpr, HAS_FAST: tl.constexpr, HAS_VALUES: tl.constexpr,
):  # fmt: skip
    """One of TOTAL heads of TOKENS tokens, `zeros` behind them: queries, keys, values, these after `room`.

    `scales` is [4, D]. Heads of the same tokens, which lie side by side, follow each other.
    """
    head = tl.program_id(0) % TOTAL
    row = tl.program_id(0) // TOTAL * TOKENS + tl.arange(0, TOKENS)
    span = length + zeros
    batch, token, wide = (row // span).to(tl.int64), (row % span).to(tl.int64), room + span
    c = tl.arange(0, BLOCK)
    channel = c < HALF
    inside = (row < rows)[:, None] & channel[None, :]
    there = inside & (token < length)[:, None]
    source = qkv + (batch * stride_b + token * stride_l)[:, None] + head * (2 * HALF) + c[None, :]
    first = tl.load(source, mask=there, other=0.0)
    second = tl.load(source + HALF, mask=there, other=0.0)
    groups: tl.constexpr = HEADS // KV_HEADS
    width: tl.constexpr = HEADS * 2 * HALF
    into = fast + (batch * length + token)[:, None] * (3 * width) + c[None, :]
    if head < HEADS + KV_HEADS:
        x, y = first.to(tl.float32), second.to(tl.float32)
        scale = inverse_rms(x, y, eps, 2 * HALF)
        weight = q_weight if head < HEADS else k_weight
        first = normed(x, scale, tl.load(weight + c, mask=channel, other=0.0)[None, :])
        second = normed(y, scale, tl.load(weight + HALF + c, mask=channel, other=0.0)[None, :])
        angle = rope + (batch * rope_b + token * rope_l)[:, None] + c[None, :]
        cos = tl.load(angle, mask=there, other=0.0).to(tl.float32)
        sin = tl.load(angle + HALF, mask=there, other=0.0).to(tl.float32)
        x, y = turned(first.to(tl.float32), second.to(tl.float32), cos, sin)
        turned_x, turned_y = x.to(out_q.dtype.element_ty), y.to(out_q.dtype.element_ty)
        if head < HEADS:
            at = ((batch * HEADS + head) * span + token)[:, None] * (2 * HALF) + c[None, :]
            _store_halves(out_q + at, HALF, turned_x, turned_y, inside)
            if HAS_FAST:
                by, to = scales + head * (2 * HALF), into + head * (2 * HALF)
                _store_scaled(to, by, width, c, channel, there, first)
                _store_scaled(to + HALF, by + HALF, width, c, channel, there, second)
        else:
            kv = head - HEADS
            at = ((batch * KV_HEADS + kv) * wide + room + token)[:, None] * (2 * HALF) + c[None, :]
            _store_halves(out_k + at, HALF, turned_x, turned_y, inside)
            if HAS_FAST:
                for group in tl.static_range(groups):
                    offset = width + (kv * groups + group) * (2 * HALF)
                    by, to = scales + width + offset, into + offset
                    _store_scaled(to, by, width, c, channel, there, first)
                    _store_scaled(to + HALF, by + HALF, width, c, channel, there, second)
    else:
        kv = head - HEADS - KV_HEADS
        if HAS_VALUES:
            at = ((batch * KV_HEADS + kv) * wide + room + token)[:, None] * (2 * HALF) + c[None, :]
            _store_halves(out_v + at, HALF, first, second, inside)
        if HAS_FAST:
            for group in tl.static_range(groups):
                to = into + 2 * width + (kv * groups + group) * (2 * HALF)
                _store_halves(to, HALF, first, second, there)


def heads(
    qkv: Tensor,
    rope: Tensor,
    norms: HeadNorms,
    kv_heads: int,
    scales: Tensor | None,
    room: int,
    zeros: int,
    copies_values: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """See `shaping.heads`; values that are not copied stay where they lie in `qkv` (no room then, no zeros)."""
    qkv, rope = unit_last(qkv), unit_last(rope)
    batch, length, width = qkv.shape
    dim = rope.shape[-1]
    total = width // dim
    num = total - 2 * kv_heads
    span = length + zeros
    q = qkv.new_empty(batch, num, span, dim)
    k = qkv.new_empty(batch, kv_heads, room + span, dim)
    v = torch.empty_like(k) if copies_values else _last_heads(qkv, kv_heads, dim)
    fast = qkv.new_empty(batch, length, 3 * num * dim) if scales is not None else None
    table = q if scales is None else scales.contiguous()
    rows = batch * span
    if fast is None and not copies_values:
        total -= kv_heads  # nothing to do for values
    if rows:
        _heads[(cdiv(rows, _TOKENS) * total,)](
            qkv, rope, norms.query, norms.key, table, q, k, v, q if fast is None else fast, rows, length,
            room, zeros, *qkv.stride()[:2], *rope.stride()[:2], norms.eps, HEADS=num, KV_HEADS=kv_heads, HALF=dim // 2,
            BLOCK=next_power_of_2(dim // 2), TOKENS=_TOKENS, TOTAL=total, HAS_FAST=fast is not None,
            HAS_VALUES=copies_values, num_warps=4,
        )  # fmt: skip
    return q, k[:, :, room:], v[:, :, room:], fast


def _last_heads(qkv: Tensor, count: int, dim: int) -> Tensor:
    """The last heads [B, count, L, dim] where they lie."""
    return qkv.unflatten(-1, (-1, dim)).transpose(1, 2)[:, -count:]


@triton.jit(do_not_specialize=["rows"])
def _rates(raw, lr, momentum, gate, rows, step, offset, HEADS: tl.constexpr, WIDTH: tl.constexpr,
           HAS_MOMENTUM: tl.constexpr, HAS_GATE: tl.constexpr, BLOCK: tl.constexpr, TOKENS: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    c = tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (c < WIDTH)[None, :]
    loaded = tl.load(raw + row[:, None] * step + c[None, :], mask=inside, other=0.0)
    x = loaded.to(tl.float32)
    z = x + offset
    # softplus as torch has it: the identity above 20, log1p below (rates are small: log(1 + u) would lose digits)
    u = tl.exp(tl.minimum(z, 20.0))
    near = 1.0 + u
    soft = tl.where(near == 1.0, u, tl.log(near) * (u / tl.where(near == 1.0, 1.0, near - 1.0)))
    soft = tl.where(z > 20.0, z, soft)
    is_rate = inside & (c < 3 * HEADS)[None, :]
    tl.store(lr + row[:, None] * (3 * HEADS) + c[None, :], soft, mask=is_rate)
    s = 1.0 / (1.0 + tl.exp(-x))
    at = row[:, None] * HEADS + c[None, :]
    if HAS_MOMENTUM:
        mine = inside & (c >= 3 * HEADS)[None, :] & (c < 4 * HEADS)[None, :]
        tl.store(momentum + at - 3 * HEADS, s.to(loaded.dtype), mask=mine)
    if HAS_GATE:
        begin: tl.constexpr = WIDTH - HEADS
        mine = inside & (c >= begin)[None, :]
        tl.store(gate + at - begin, (x * s).to(loaded.dtype), mask=mine)


def rates(raw: Tensor, offset: float, num_heads: int, has: tuple[bool, bool]) -> tuple[Tensor, ...]:
    """See `shaping.rates`."""
    batch, length, width = raw.shape
    flat = unit_last(raw.flatten(0, 1))
    lr = raw.new_empty(batch, length, 3 * num_heads, dtype=torch.float32)
    momentum, gate = (
        raw.new_empty(batch, length, num_heads) if there else raw.new_ones(batch, length, num_heads)
        for there in has
    )
    rows = batch * length
    if rows:
        _rates[(cdiv(rows, 32),)](
            flat, lr, momentum, gate, rows, flat.stride(0), offset, HEADS=num_heads, WIDTH=width, HAS_MOMENTUM=has[0],
            HAS_GATE=has[1], BLOCK=next_power_of_2(width), TOKENS=32, num_warps=4,
        )  # fmt: skip
    return lr, momentum, gate


@triton.jit(do_not_specialize=["length"])
def _add_rms_norm(x, more, weight, total, out, size, length, stride_b, stride_l, more_b, more_l, eps,
                  HAS_MORE: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    batch, token = row // length, row % length
    c = tl.arange(0, BLOCK)
    mask = c < size
    value = tl.load(x + batch * stride_b + token * stride_l + c, mask=mask, other=0.0)
    dtype = value.dtype
    if HAS_MORE:
        other = tl.load(more + batch * more_b + token * more_l + c, mask=mask, other=0.0)
        value = (value.to(tl.float32) + other.to(tl.float32)).to(dtype)
        tl.store(total + row * size + c, value, mask=mask)
    exact = value.to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(exact * exact, axis=0) / size + eps)
    w = tl.load(weight + c, mask=mask, other=0.0)
    rounded = (exact * scale).to(w.dtype).to(tl.float32)
    tl.store(out + row * size + c, (w.to(tl.float32) * rounded).to(dtype), mask=mask)


def add_rms_norm(
    x: Tensor, more: Tensor | None, weight: Tensor, eps: float, room: int = 0
) -> tuple[Tensor, Tensor]:
    """See `shaping.add_rms_norm`; without `more` the first result is x itself."""
    shape, size = x.shape, x.shape[-1]
    if not x.numel():
        return x, x
    x = x.reshape(-1, x.shape[-2], size) if x.ndim > 2 else x.reshape(1, -1, size)
    x = unit_last(x)
    other = x if more is None else more.reshape(x.shape)
    other = unit_last(other)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    total = x if more is None else x.new_empty(x.shape[0], room + x.shape[1], size)[:, room:]
    _add_rms_norm[(x.shape[0] * x.shape[1],)](
        x, other, weight, total, out, size, x.shape[1], *x.stride()[:2], *other.stride()[:2], eps,
        HAS_MORE=more is not None, BLOCK=next_power_of_2(size), num_warps=8 if size >= 2048 else 4,
    )  # fmt: skip
    return total.reshape(shape), out.reshape(shape)


@triton.jit
def _layer_norm(x, late, weight, bias, out, size, eps, HAS_LATE: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK)
    mask = c < size
    at = row * size + c
    exact = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    if HAS_LATE:
        exact += tl.load(late + c, mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(exact, axis=0) / size
    apart = tl.where(mask, exact - mean, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(apart * apart, axis=0) / size + eps)
    w = tl.load(weight + c, mask=mask, other=0.0).to(tl.float32)
    b = tl.load(bias + c, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + at, (apart * scale * w + b).to(out.dtype.element_ty), mask=mask)


def layer_norm(x: Tensor, late: Tensor | None, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """See `shaping.layer_norm`."""
    size = x.shape[-1]
    out = torch.empty_like(x)
    _layer_norm[(x.numel() // size,)](
        x, x if late is None else late, weight, bias, out, size, eps, HAS_LATE=late is not None,
        BLOCK=next_power_of_2(size), num_warps=4,
    )  # fmt: skip
    return out


@triton.jit(do_not_specialize=["rows"])
def _swiglu_halves(both, out, rows, size, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = c < size
    x = tl.load(both + row * 2 * size + c, mask=mask, other=0.0)
    y = tl.load(both + row * 2 * size + size + c, mask=mask, other=0.0)
    exact = x.to(tl.float32)
    gated = (exact / (1.0 + tl.exp(-exact))).to(x.dtype)
    tl.store(out + row * size + c, (gated.to(tl.float32) * y.to(tl.float32)).to(x.dtype), mask=mask)


def swiglu_halves(both: Tensor, out: Tensor | None = None) -> Tensor:
    """See `shaping.swiglu_halves`."""
    both = both.contiguous()
    size = both.shape[-1] // 2
    out = both.new_empty(*both.shape[:-1], size) if out is None else out
    rows = out.numel() // size
    if rows:
        block = min(2048, next_power_of_2(size))
        grid = (rows, cdiv(size, block))
        _swiglu_halves[grid](both, out, rows, size, BLOCK=block, num_warps=4)
    return out


@triton.jit(do_not_specialize=["rows", "patches"])
def _turn_patches(qkv, cos, sin, bias, rows, patches, HEADS: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
                  TOKENS: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    head = tl.program_id(1)
    c = tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (c < HALF)[None, :]
    angle = (row % patches)[:, None] * HALF + c[None, :]
    turn_x = tl.load(cos + angle, mask=inside, other=0.0).to(tl.float32)
    turn_y = tl.load(sin + angle, mask=inside, other=0.0).to(tl.float32)
    at = qkv + row[:, None] * (6 * HALF * HEADS) + head * (2 * HALF) + c[None, :]
    first = tl.load(at, mask=inside, other=0.0)
    second = tl.load(at + HALF, mask=inside, other=0.0)
    own = bias + head * (2 * HALF) + c
    x = first.to(tl.float32) + tl.load(own, mask=c < HALF, other=0.0).to(tl.float32)[None, :]
    y = (
        second.to(tl.float32)
        + tl.load(own + HALF, mask=c < HALF, other=0.0).to(tl.float32)[None, :]
    )
    tl.store(at, (x * turn_x - y * turn_y).to(first.dtype), mask=inside)
    tl.store(at + HALF, (y * turn_x + x * turn_y).to(first.dtype), mask=inside)


def turn_patches(qkv: Tensor, cos: Tensor, sin: Tensor, num_heads: int, bias: Tensor) -> Tensor:
    """See `shaping.turn_patches`; heads of queries and of keys lie side by side, so one grid turns both."""
    slots, patches, width = qkv.shape
    half = width // 6 // num_heads
    rows = slots * patches
    _turn_patches[(cdiv(rows, _TOKENS), 2 * num_heads)](
        qkv, cos, sin, bias, rows, patches, HEADS=num_heads, HALF=half, BLOCK=next_power_of_2(half),
        TOKENS=_TOKENS, num_warps=4,
    )  # fmt: skip
    return qkv
