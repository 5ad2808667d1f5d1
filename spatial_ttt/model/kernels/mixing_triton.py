"""Triton kernels of `mixing`: one pass over memory each, sums in float32.

A program takes TOKENS tokens of one head. Channel c is turned with its partner half a head_dim away: what is turned is
read a second time (from the cache) instead of moved between threads.
"""
# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# Kernels are Triton's language, which has no types of Python's.

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from spatial_ttt.model.kernels.commit_triton import sum_of
from spatial_ttt.model.kernels.sizes import cdiv, next_power_of_2, unit_last

_TILE = 2048  # entries of a program's tile
_WIDE_TILE = 4096  # the same of a program that sums up
_PARTS = 4096  # programs that share the rows of a weight gradient


@triton.jit
def _turn(token, channel, inside, rope, half, stride_l):
    """Partner channel, cos and signed sin [T, D] of the rotation; none beyond 2 * half channels."""
    is_first, is_turned = channel < half, channel < 2 * half
    partner = tl.where(is_first, channel + half, tl.where(is_turned, channel - half, channel))
    angle = tl.where(is_first, channel, channel - half)
    at = rope + token[:, None] * stride_l + angle[None, :]
    mask = inside & is_turned[None, :]
    cos = tl.load(at, mask=mask, other=1.0).to(tl.float32)
    sin = tl.load(at + half, mask=mask, other=0.0).to(tl.float32)
    return partner, cos, tl.where(is_first[None, :], -sin, sin)


@triton.jit
def _prepare_part(
    part, to, source, rope, length, heads, dim, half, eps, stride_b, stride_l, rope_b, rope_l, to_b, to_h, to_l,
    TOKENS: tl.constexpr, CHANNELS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """Query, key or value (part 0, 1, 2) of some tokens of one head.

    The turned channels are read a second time, half by half: neighbours side by side, in few wide loads.
    """
    row = tl.program_id(0).to(tl.int64)
    batch, head = row // heads, row % heads
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    channel = tl.arange(0, CHANNELS)
    there = (token < length)[:, None]
    inside = there & (channel < dim)[None, :]
    source += batch * stride_b + (part * heads + head) * dim
    to += batch * to_b + head * to_h
    from_token, to_token = source + token[:, None] * stride_l, to + token[:, None] * to_l
    y = _silu(from_token + channel[None, :], inside)
    if part < 2:
        c = tl.arange(0, HALF)[None, :]
        turned = there & (c < half)
        angle = rope + batch * rope_b + token[:, None] * rope_l + c
        # All is asked for before threads wait for each other's sums.
        cos = tl.load(angle, mask=turned, other=1.0).to(tl.float32)
        sin = tl.load(angle + half, mask=turned, other=0.0).to(tl.float32)
        first, second = _silu(from_token + c, turned), _silu(from_token + half + c, turned)
        scale = 1.0 / (tl.sqrt(tl.sum(y * y, axis=1)) + eps)[:, None]
        y *= scale
        inside = inside & (channel >= 2 * half)[None, :]
        dtype = to.dtype.element_ty
        tl.store(to_token + c, ((first * cos - second * sin) * scale).to(dtype), mask=turned)
        tl.store(to_token + half + c, ((second * cos + first * sin) * scale).to(dtype), mask=turned)
    tl.store(to_token + channel[None, :], y.to(to.dtype.element_ty), mask=inside)


@triton.jit
def _silu(place, inside):
    x = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    return x * tl.sigmoid(x)


@triton.jit(do_not_specialize=["length"])
def _prepare(
    source, rope, out, length, heads, dim, half, eps, stride_b, stride_l, rope_b, rope_l, size, to_b, to_h, to_l,
    TOKENS: tl.constexpr, CHANNELS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """Axis 2 of the grid counts the parts; `size` entries lie between their results."""
    part = tl.program_id(2)
    _prepare_part(
        part, out + part * size, source, rope, length, heads, dim, half, eps, stride_b, stride_l, rope_b, rope_l,
        to_b, to_h, to_l, TOKENS, CHANNELS, HALF,
    )  # fmt: skip


@triton.jit(do_not_specialize=["length", "count"])
def _lay(
    source, rope, lr, momentum, out, lr_out, beta, length, count, heads, dim, half, eps, stride_b, stride_l,
    rope_b, rope_l, size, room, lr_b, lr_h, lr_l, momentum_b, momentum_h, momentum_l,
    HAS_PAST: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """Rates, which are zero from `length` to `count`, and as the grid's axis 2 goes on, keys and values.

    The first program of a head sums its momentum: that takes longest, so rates come first.
    """
    part = tl.program_id(2)
    if part > 0:
        _prepare_part(
            part, out + (part - 1) * size, source, rope, length, heads, dim, half, eps, stride_b, stride_l, rope_b,
            rope_l, heads * room * dim, room * dim, dim, TOKENS, CHANNELS, HALF,
        )  # fmt: skip
    else:
        row = tl.program_id(0).to(tl.int64)
        batch, head = row // heads, row % heads
        token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
        rate = tl.arange(0, 4)
        known = (token < length)[:, None] & (rate < 3)[None, :]
        of = lr + batch * lr_b + head * lr_h + token[:, None] * lr_l + rate[None, :]
        to = lr_out + (row * room + token)[:, None] * 3 + rate[None, :]
        wanted = (token < count)[:, None] & (rate < 3)[None, :]
        tl.store(to, tl.load(of, mask=known, other=0.0), mask=wanted)
        if tl.program_id(1) == 0:
            share = sum_of(momentum + batch * momentum_b + head * momentum_h, momentum_l, length)
            if HAS_PAST:
                share += tl.load(beta + row)
            tl.store(beta + row, share)


@triton.jit(do_not_specialize=["length"])
def _prepare_backward(
    grad, source, rope, out, out_b, out_l, length, heads, dim, half, eps, stride_b, stride_l, rope_b, rope_l,
    TURN: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    batch, head = row // heads, row % heads
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    channel = tl.arange(0, CHANNELS)
    inside = (token < length)[:, None] & (channel < dim)[None, :]
    base = source + batch * stride_b + head * dim + token[:, None] * stride_l
    x = tl.load(base + channel[None, :], mask=inside, other=0.0).to(tl.float32)
    from_grad = grad + (row * length + token)[:, None] * dim
    d = tl.load(from_grad + channel[None, :], mask=inside, other=0.0).to(tl.float32)
    s = tl.sigmoid(x)
    y = x * s
    if TURN:
        partner, cos, sin = _turn(token, channel, inside, rope + batch * rope_b, half, rope_l)
        other = tl.load(from_grad + partner[None, :], mask=inside, other=0.0).to(tl.float32)
        d = d * cos - other * sin
        norm = tl.sqrt(tl.sum(y * y, axis=1))
        scale = 1.0 / (norm + eps)
        along = tl.sum(d * y, axis=1) * scale * scale / tl.where(norm > 0, norm, 1.0)
        d = d * scale[:, None] - y * along[:, None]
    d *= s * (1.0 + x * (1.0 - s))
    at = batch * out_b + token[:, None] * out_l + head * dim + channel[None, :]
    tl.store(out + at, d.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows", "length"])
def _combine(
    attended, read, weight, gate, out, rows, heads, length, dim, eps, stride_b, stride_h, stride_l,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """A row is one head of one token, in the order [B, L, H]."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, CHANNELS)
    inside = (row < rows)[:, None] & (channel < dim)[None, :]
    token = row // heads
    at = (token // length) * stride_b + (row % heads) * stride_h + (token % length) * stride_l
    x = tl.load(read + at[:, None] + channel[None, :], mask=inside, other=0.0).to(tl.float32)
    w = tl.load(weight + channel, mask=channel < dim, other=0.0).to(tl.float32)
    g = tl.load(gate + row, mask=row < rows, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(x * x, axis=1) / dim + eps)
    to = row[:, None] * dim + channel[None, :]
    a = tl.load(attended + to, mask=inside, other=0.0).to(tl.float32)
    y = a + x * (scale * g)[:, None] * w[None, :]
    tl.store(out + to, y.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows", "length"])
def _combine_backward(
    grad, read, weight, gate, d_read, d_gate, parts, rows, heads, length, dim, eps, stride_b, stride_h, stride_l,
    to_b, to_h, to_l, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Every n-th block of rows; `parts` [n, D] takes each program's share of the weight's gradient."""
    channel = tl.arange(0, CHANNELS)
    w = tl.load(weight + channel, mask=channel < dim, other=0.0).to(tl.float32)
    d_w = tl.zeros((CHANNELS,), tl.float32)
    blocks = tl.cdiv(rows, ROWS)
    first = tl.program_id(0).to(tl.int64)
    for turn in tl.range(0, tl.cdiv(blocks - tl.program_id(0), tl.num_programs(0)), num_stages=1):
        row = (first + turn * tl.num_programs(0)) * ROWS + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & (channel < dim)[None, :]
        batch, head, token = row // heads // length, row % heads, row // heads % length
        at = batch * stride_b + head * stride_h + token * stride_l
        x = tl.load(read + at[:, None] + channel[None, :], mask=inside, other=0.0).to(tl.float32)
        g = tl.load(gate + row, mask=row < rows, other=0.0).to(tl.float32)
        d = tl.load(grad + row[:, None] * dim + channel[None, :], mask=inside, other=0.0)
        d = d.to(tl.float32)
        scale = 1.0 / tl.sqrt(tl.sum(x * x, axis=1) / dim + eps)
        unit = x * scale[:, None]
        tl.store(
            d_gate + row,
            tl.sum(d * unit * w[None, :], axis=1).to(d_gate.dtype.element_ty),
            mask=row < rows,
        )
        d = d * g[:, None]
        d_w += tl.sum(d * unit, axis=0)
        d = d * w[None, :]
        along = tl.sum(d * unit, axis=1) / dim
        d = (d - unit * along[:, None]) * scale[:, None]
        to = d_read + (batch * to_b + head * to_h + token * to_l)[:, None] + channel[None, :]
        tl.store(to, d.to(d_read.dtype.element_ty), mask=inside)
    tl.store(parts + first * dim + channel, d_w, mask=channel < dim)


def _tile(dim: int, entries: int = _TILE) -> tuple[int, int]:
    """Tokens and channels of a program."""
    channels = next_power_of_2(dim)
    return max(1, min(32, entries // channels)), channels


def prepare(
    fast: Tensor, rope: Tensor, dim: int, eps: float, out: Tensor | None = None
) -> tuple[Tensor, ...]:
    """[B, L, 3 * H * D] -> query, key, value [B, H, L, D]; the first 1 to 3 into `out` [n, B, H, L, D] if given."""
    fast, rope = unit_last(fast), unit_last(rope)
    batch, length, width = fast.shape
    heads = width // 3 // dim
    out = fast.new_empty(3, batch, heads, length, dim) if out is None else out
    tokens, channels = _tile(dim)
    _prepare[(batch * heads, cdiv(length, tokens), out.shape[0])](
        fast, rope, out, length, heads, dim, rope.shape[-1] // 2, eps, *fast.stride()[:2], *rope.stride()[:2],
        out.stride(0), *out.stride()[1:4], TOKENS=tokens, CHANNELS=channels,
        HALF=next_power_of_2(rope.shape[-1] // 2), num_warps=4,
    )  # fmt: skip
    return out.unbind()


def lay(
    fast: Tensor,
    rope: Tensor,
    rates: tuple[Tensor, Tensor],
    to: tuple[Tensor, Tensor, Tensor],
    count: int,
    eps: float,
    has_past: bool,
) -> None:
    """See `mixing.lay`."""
    fast, rope = unit_last(fast), unit_last(rope)
    (lr, momentum), (rows, lr_out, beta) = rates, to
    lr = unit_last(lr)
    _, batch, heads, room, dim = rows.shape
    tokens, channels = _tile(dim)
    _lay[(batch * heads, cdiv(count, tokens), 3)](
        fast, rope, lr, momentum, rows, lr_out, beta, fast.shape[1], count, heads, dim, rope.shape[-1] // 2,
        eps, *fast.stride()[:2], *rope.stride()[:2], rows[0].numel(), room, *lr.stride()[:3], *momentum.stride(),
        HAS_PAST=has_past, TOKENS=tokens, CHANNELS=channels, HALF=next_power_of_2(rope.shape[-1] // 2), num_warps=4,
    )  # fmt: skip


def prepare_backward(
    grads: Sequence[Tensor], fast: Tensor, rope: Tensor, dim: int, eps: float
) -> Tensor:
    """Gradient of `fast` [B, L, 3 * H * D] from those of `prepare`'s results."""
    fast, rope = unit_last(fast), unit_last(rope)
    batch, length, width = fast.shape
    heads = width // 3 // dim
    whole = torch.empty(fast.shape, dtype=fast.dtype, device=fast.device)
    tokens, channels = _tile(dim)
    grid = (batch * heads, cdiv(length, tokens))
    parts = zip(fast.chunk(3, dim=-1), whole.chunk(3, dim=-1), grads, strict=True)
    for i, (x, out, grad) in enumerate(parts):
        _prepare_backward[grid](
            grad.contiguous(), x, rope, out, *out.stride()[:2],
            length, heads, dim, rope.shape[-1] // 2, eps, *x.stride()[:2], *rope.stride()[:2],
            TURN=i < 2, TOKENS=tokens, CHANNELS=channels, num_warps=4,
        )  # fmt: skip
    return whole


def combine(attended: Tensor, read: Tensor, weight: Tensor, gate: Tensor, eps: float) -> Tensor:
    """attended + RMSNorm(read) * gate, [B, L, H * D]."""
    attended, read = attended.contiguous(), unit_last(read)
    out = torch.empty_like(attended)
    batch, heads, length, dim = read.shape
    rows, channels = _tile(dim)
    count = batch * length * heads
    _combine[(cdiv(count, rows),)](
        attended, read, weight, gate.contiguous(), out, count, heads, length, dim, eps, *read.stride()[:3],
        ROWS=rows, CHANNELS=channels, num_warps=4,
    )  # fmt: skip
    return out


def combine_backward(
    grad: Tensor, read: Tensor, weight: Tensor, gate: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of read [B, H, L, D] (which lies as that does), weight and gate."""
    grad, read, gate = grad.contiguous(), unit_last(read), gate.contiguous()
    batch, heads, length, dim = read.shape
    rows, channels = _tile(dim, _WIDE_TILE)
    count = batch * length * heads
    programs = min(_PARTS, cdiv(count, rows))
    d_read = torch.empty_like(read)
    d_gate = torch.empty_like(gate)
    parts = torch.empty(programs, dim, dtype=torch.float32, device=read.device)
    _combine_backward[(programs,)](
        grad, read, weight, gate, d_read, d_gate, parts, count, heads, length, dim, eps, *read.stride()[:3],
        *d_read.stride()[:3], ROWS=rows, CHANNELS=channels, num_warps=4,
    )  # fmt: skip
    return d_read, parts.sum(0).to(weight.dtype), d_gate
