"""Depthwise 3x3x3 convolution over slots in Triton: forward, gradient of the slots, gradient of the kernel.

Memory-bound: 27 taps read from the caches, sums in float32. Replicate padding is a clamp of the row and column
that are read. Turned around, a pixel still has three taps per axis: where the reading pixel would lie outside, the
border pixel reads once more with the tap that points outwards. The kernel's gradient is summed in a fixed order.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# Kernels are Triton's language, which has no types of Python's.
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

TAPS = 27
_SPLITS = 2048  # programs that share the positions of one kernel gradient, all channels together


@triton.jit
def _forward(
    slots, taps, out, frames, height, width, channels, stride_b, stride_t, stride_h, stride_w, stride_c,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(height * width, PIXELS)
    image = tl.program_id(0) // blocks
    pixel = (tl.program_id(0) % blocks) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    row, col = pixel // width, pixel % width
    inside = (pixel < height * width)[:, None] & (channel < channels)[None, :]
    base = (
        slots + (image // frames).to(tl.int64) * stride_b + (image % frames).to(tl.int64) * stride_t
    )
    acc = tl.zeros((PIXELS, CHANNELS), tl.float32)
    for t in tl.range(0, 3, num_stages=1):  # not unrolled: 27 loads at once would spill
        for dy in tl.static_range(3):
            y = tl.minimum(tl.maximum(row + (dy - 1), 0), height - 1)
            for dx in tl.static_range(3):
                x = tl.minimum(tl.maximum(col + (dx - 1), 0), width - 1)
                at = t * stride_t + y * stride_h + x * stride_w
                value = tl.load(
                    base + at[:, None] + channel[None, :] * stride_c, mask=inside, other=0.0
                )
                tap = tl.load(
                    taps + (t * 9 + dy * 3 + dx) * channels + channel,
                    mask=channel < channels,
                    other=0.0,
                )
                acc += value.to(tl.float32) * tap.to(tl.float32)[None, :]
    at = (image.to(tl.int64) * (height * width) + pixel)[:, None] * channels + channel[None, :]
    tl.store(out + at, acc.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _backward_slots(
    grad, taps, out, frames, height, width, channels, PIXELS: tl.constexpr, CHANNELS: tl.constexpr
):
    """`out` is [B, T + 2, h, w, C]: slot s is read by outputs s - 2, s - 1, s."""
    blocks = tl.cdiv(height * width, PIXELS)
    image = tl.program_id(0) // blocks
    batch, slot = image // (frames + 2), image % (frames + 2)
    pixel = (tl.program_id(0) % blocks) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    row, col = pixel // width, pixel % width
    inside = (pixel < height * width)[:, None] & (channel < channels)[None, :]
    acc = tl.zeros((PIXELS, CHANNELS), tl.float32)
    for t in tl.range(0, 3, num_stages=1):  # not unrolled: 27 loads at once would spill
        frame = slot - t
        valid = inside & (frame >= 0) & (frame < frames)
        base = grad + (batch * frames + frame).to(tl.int64) * (height * width * channels)
        for dy in tl.static_range(3):
            y = row + (1 - dy)
            tap_y = tl.where(y < 0, 0, tl.where(y >= height, 2, dy))
            y = tl.minimum(tl.maximum(y, 0), height - 1)
            for dx in tl.static_range(3):
                x = col + (1 - dx)
                tap_x = tl.where(x < 0, 0, tl.where(x >= width, 2, dx))
                x = tl.minimum(tl.maximum(x, 0), width - 1)
                at = (y * width + x) * channels
                value = tl.load(base + at[:, None] + channel[None, :], mask=valid, other=0.0)
                which = (t * 9 + tap_y * 3 + tap_x) * channels
                tap = tl.load(taps + which[:, None] + channel[None, :], mask=valid, other=0.0)
                acc += value.to(tl.float32) * tap.to(tl.float32)
    at = (image.to(tl.int64) * (height * width) + pixel)[:, None] * channels + channel[None, :]
    tl.store(out + at, acc.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _backward_weight(
    grad, slots, parts, rows, frames, height, width, channels, stride_b, stride_t, stride_h, stride_w, stride_c,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    """One block of channels, one step in time, every n-th row of pixels -> nine sums in `parts` [n, 27, C]."""
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    mask = channel < channels
    t = tl.program_id(2)
    s00 = tl.zeros((CHANNELS,), tl.float32)
    s01, s02, s10, s11, s12, s20, s21, s22 = s00, s00, s00, s00, s00, s00, s00, s00
    first = tl.program_id(0).to(tl.int64)
    # num_stages=1: the pipeliner mixes up values that are used two turns after their load.
    for turn in tl.range(0, tl.cdiv(rows - tl.program_id(0), tl.num_programs(0)), num_stages=1):
        line = first + turn * tl.num_programs(0)
        image, y = line // height, line % height
        base = (
            slots
            + (image // frames) * stride_b
            + (image % frames + t) * stride_t
            + channel * stride_c
        )
        top = base + tl.maximum(y - 1, 0) * stride_h
        middle = base + y * stride_h
        bottom = base + tl.minimum(y + 1, height - 1) * stride_h
        from_grad = grad + line * width * channels + channel
        b0 = tl.load(top, mask=mask, other=0.0).to(tl.float32)
        b1 = tl.load(middle, mask=mask, other=0.0).to(tl.float32)
        b2 = tl.load(bottom, mask=mask, other=0.0).to(tl.float32)
        a0, a1, a2 = b0, b1, b2
        for x in tl.range(0, width, num_stages=1):
            at = tl.minimum(x + 1, width - 1) * stride_w
            c0 = tl.load(top + at, mask=mask, other=0.0).to(tl.float32)
            c1 = tl.load(middle + at, mask=mask, other=0.0).to(tl.float32)
            c2 = tl.load(bottom + at, mask=mask, other=0.0).to(tl.float32)
            g = tl.load(from_grad + x * channels, mask=mask, other=0.0).to(tl.float32)
            s00 += g * a0
            s01 += g * b0
            s02 += g * c0
            s10 += g * a1
            s11 += g * b1
            s12 += g * c1
            s20 += g * a2
            s21 += g * b2
            s22 += g * c2
            a0, a1, a2, b0, b1, b2 = b0, b1, b2, c0, c1, c2
    out = parts + (tl.program_id(0) * 27 + t * 9) * channels + channel
    tl.store(out, s00, mask=mask)
    tl.store(out + channels, s01, mask=mask)
    tl.store(out + 2 * channels, s02, mask=mask)
    tl.store(out + 3 * channels, s10, mask=mask)
    tl.store(out + 4 * channels, s11, mask=mask)
    tl.store(out + 5 * channels, s12, mask=mask)
    tl.store(out + 6 * channels, s20, mask=mask)
    tl.store(out + 7 * channels, s21, mask=mask)
    tl.store(out + 8 * channels, s22, mask=mask)


def _taps(weight: Tensor) -> Tensor:
    """[C, 1, 3, 3, 3] -> [27, C], so that neighbouring channels lie side by side."""
    return weight.reshape(weight.shape[0], TAPS).t().contiguous()


def _blocks(pixels: int, channels: int) -> dict[str, int]:
    return {
        "PIXELS": min(16, triton.next_power_of_2(pixels)),
        "CHANNELS": min(128, triton.next_power_of_2(channels)),
        "num_warps": 4,
    }


def forward(slots: Tensor, weight: Tensor) -> Tensor:
    """[B, T + 2, h, w, C], any strides -> [B, T, h, w, C]; output t reads slots t, t + 1, t + 2."""
    batch, frames, height, width, channels = slots.shape
    frames -= 2
    out = slots.new_empty(batch, frames, height, width, channels)
    block = _blocks(height * width, channels)
    grid = (
        batch * frames * triton.cdiv(height * width, block["PIXELS"]),
        triton.cdiv(channels, block["CHANNELS"]),
    )
    if grid[0]:
        _forward[grid](
            slots, _taps(weight), out, frames, height, width, channels, *slots.stride(), **block
        )
    return out


def backward_slots(grad: Tensor, weight: Tensor) -> Tensor:
    """Gradient of the slots [B, T + 2, h, w, C] from that of the outputs [B, T, h, w, C]."""
    grad = grad.contiguous()
    batch, frames, height, width, channels = grad.shape
    out = grad.new_empty(batch, frames + 2, height, width, channels)
    block = _blocks(height * width, channels)
    grid = (
        batch * (frames + 2) * triton.cdiv(height * width, block["PIXELS"]),
        triton.cdiv(channels, block["CHANNELS"]),
    )
    _backward_slots[grid](grad, _taps(weight), out, frames, height, width, channels, **block)
    return out


def backward_weight(grad: Tensor, slots: Tensor, weight: Tensor) -> Tensor:
    """Gradient of the kernel [C, 1, 3, 3, 3]; partial sums per program, then one sum over them."""
    grad = grad.contiguous()
    batch, frames, height, width, channels = grad.shape
    rows = batch * frames * height
    block = min(128, triton.next_power_of_2(channels))
    columns = triton.cdiv(channels, block)
    splits = max(1, min(rows, _SPLITS // (3 * columns)))
    parts = torch.empty(splits, TAPS, channels, dtype=torch.float32, device=grad.device)
    _backward_weight[(splits, columns, 3)](
        grad,
        slots,
        parts,
        rows,
        frames,
        height,
        width,
        channels,
        *slots.stride(),
        CHANNELS=block,
        num_warps=1,
    )
    return parts.sum(0).t().reshape(weight.shape).to(weight.dtype)
