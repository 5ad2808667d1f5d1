"""Depthwise 3x3x3 convolution over slots in Triton: forward, gradient of the slots, gradient of the kernel.

Memory-bound, sums in float32. A thread keeps the taps of its two channels in registers and walks along time, so a
slot is read nine times (from the caches), not 27. Replicate padding is a clamp of the row and column that are
read. Turned around, a pixel still has three taps per axis: where the reading pixel would lie outside, the border
pixel reads once more with the tap that points outwards. The kernel's gradient is summed in a fixed order.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator,assignment"
# Kernels are Triton's language, which has no types of Python's.
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from spatial_ttt.model.kernels.sizes import cdiv, next_power_of_2

TAPS = 27
_FRAMES = 8  # outputs a program makes one after the other
_SPLITS = 2048  # programs that share the positions of one kernel gradient, all channels together


@triton.jit(do_not_specialize=["reads", "writes", "height", "width"])
def _convolve(
    source, taps, out, reads, writes, height, width, channels, stride_b, stride_t, stride_h, stride_w, stride_c,
    BACKWARD: tl.constexpr, FRAMES: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """FRAMES neighbouring outputs of a block of pixels and channels.

    Forward, output t reads slots t, t + 1, t + 2 with taps 0, 1, 2; backward, slot s reads frames s, s - 1, s - 2
    with taps 0, 1, 2 and what lies outside is zero. Either way a frame that is read goes to three outputs,
    of which two are carried on.
    """
    blocks = tl.cdiv(height * width, PIXELS)
    spans = tl.cdiv(writes, FRAMES)
    program = tl.program_id(0)
    pixel = (program % blocks) * PIXELS + tl.arange(0, PIXELS)
    begin = (program // blocks % spans) * FRAMES
    batch = (program // (blocks * spans)).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    row, col = pixel // width, pixel % width
    inside = (pixel < height * width)[:, None] & (channel < channels)[None, :]
    weights = ()
    places = ()
    for dy in tl.static_range(3):
        for dx in tl.static_range(3):
            if BACKWARD:
                y, x = row + (1 - dy), col + (1 - dx)
                tap = tl.where(y < 0, 0, tl.where(y >= height, 2, dy)) * 3
                tap += tl.where(x < 0, 0, tl.where(x >= width, 2, dx))
            else:
                y, x = row + (dy - 1), col + (dx - 1)
                tap = tl.zeros((PIXELS,), tl.int32) + (dy * 3 + dx)
            y = tl.minimum(tl.maximum(y, 0), height - 1)
            x = tl.minimum(tl.maximum(x, 0), width - 1)
            places += ((y * stride_h + x * stride_w)[:, None] + channel[None, :] * stride_c,)
            for t in tl.static_range(3):
                at = (t * 9 + tap)[:, None] * channels + channel[None, :]
                weights += (tl.load(taps + at, mask=inside, other=0.0).to(tl.float32),)
    next_1 = tl.zeros((PIXELS, CHANNELS), tl.float32)  # what the next output has so far
    next_2 = tl.zeros((PIXELS, CHANNELS), tl.float32)  # and the one after it
    base = source + batch * stride_b
    to = out + (batch * writes * (height * width) + pixel)[:, None] * channels + channel[None, :]
    stop = tl.minimum(begin + FRAMES, writes)
    for i in tl.range(0, stop - begin + 2, num_stages=1):
        read = begin + i - 2 if BACKWARD else begin + i
        frame = base + tl.maximum(read, 0).to(tl.int64) * stride_t
        valid = inside & (read >= 0) & (read < reads)
        now = next_1
        next_1 = next_2
        next_2 = tl.zeros((PIXELS, CHANNELS), tl.float32)
        for k in tl.static_range(9):
            value = tl.load(frame + places[k], mask=valid, other=0.0).to(tl.float32)
            now += value * weights[k * 3 + (0 if BACKWARD else 2)]
            next_1 += value * weights[k * 3 + 1]
            next_2 += value * weights[k * 3 + (2 if BACKWARD else 0)]
        if i >= 2:
            done = (begin + i - 2).to(tl.int64) * (height * width) * channels
            tl.store(to + done, now.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows", "frames", "height", "width"])
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
        for x in tl.range(0, width, num_stages=1):
            g = tl.load(from_grad + x * channels, mask=mask, other=0.0).to(tl.float32)
            # Nine loads, mostly from the cache. Carrying columns from turn to turn instead was miscompiled
            # (Triton 3.6, sm_90: wrong from the third column on, right in the interpreter).
            left = tl.maximum(x - 1, 0) * stride_w
            here = x * stride_w
            right = tl.minimum(x + 1, width - 1) * stride_w
            s00 += g * tl.load(top + left, mask=mask, other=0.0).to(tl.float32)
            s01 += g * tl.load(top + here, mask=mask, other=0.0).to(tl.float32)
            s02 += g * tl.load(top + right, mask=mask, other=0.0).to(tl.float32)
            s10 += g * tl.load(middle + left, mask=mask, other=0.0).to(tl.float32)
            s11 += g * tl.load(middle + here, mask=mask, other=0.0).to(tl.float32)
            s12 += g * tl.load(middle + right, mask=mask, other=0.0).to(tl.float32)
            s20 += g * tl.load(bottom + left, mask=mask, other=0.0).to(tl.float32)
            s21 += g * tl.load(bottom + here, mask=mask, other=0.0).to(tl.float32)
            s22 += g * tl.load(bottom + right, mask=mask, other=0.0).to(tl.float32)
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


def taps_of(weight: Tensor) -> Tensor:
    """[C, 1, 3, 3, 3] -> [27, C], so that neighbouring channels lie side by side."""
    return weight.reshape(weight.shape[0], TAPS).t().contiguous()


def _launch(source: Tensor, weight: Tensor, writes: int, *, is_backward: bool) -> Tensor:
    batch, reads, height, width, channels = source.shape
    out = source.new_empty(batch, writes, height, width, channels)
    pixels, block = (
        4,
        min(64, next_power_of_2(channels)),
    )  # two channels a thread, taps in registers
    frames = min(_FRAMES, next_power_of_2(max(1, writes)))
    programs = batch * cdiv(writes, frames) * cdiv(height * width, pixels)
    if programs:
        _convolve[(programs, cdiv(channels, block))](
            source, taps_of(weight), out, reads, writes, height, width, channels, *source.stride(),
            BACKWARD=is_backward, FRAMES=frames, PIXELS=pixels, CHANNELS=block, num_warps=4,
        )  # fmt: skip
    return out


def forward(slots: Tensor, weight: Tensor) -> Tensor:
    """[B, T + 2, h, w, C], any strides -> [B, T, h, w, C]; output t reads slots t, t + 1, t + 2."""
    return _launch(slots, weight, slots.shape[1] - 2, is_backward=False)


def backward_slots(grad: Tensor, weight: Tensor) -> Tensor:
    """Gradient of the slots [B, T + 2, h, w, C] from that of the outputs [B, T, h, w, C]."""
    return _launch(grad, weight, grad.shape[1] + 2, is_backward=True)


def backward_weight(grad: Tensor, slots: Tensor, weight: Tensor) -> Tensor:
    """Gradient of the kernel [C, 1, 3, 3, 3]; partial sums per program, then one sum over them."""
    grad = grad.contiguous()
    batch, frames, height, width, channels = grad.shape
    rows = batch * frames * height
    block = min(128, next_power_of_2(channels))
    columns = cdiv(channels, block)
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
