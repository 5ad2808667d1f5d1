"""Depthwise 3x3x3 convolution over slots in Triton; its backward pass is in convolution_gradient_triton.py.

Memory-bound, sums in float32. A thread keeps the taps of its two channels in registers and walks along time, so a
slot is read nine times (from the caches), not 27. Replicate padding is a clamp of the row and column that are read.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator,assignment"
# Kernels are Triton's language, which has no types of Python's.
from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from spatial_ttt.model.kernels.sizes import cdiv, next_power_of_2

TAPS = 27
_FRAMES = 8  # outputs a program makes one after the other


@triton.jit(do_not_specialize=["writes", "height", "width"])
def _convolve(
    source, taps, out, writes, height, width, channels, stride_b, stride_t, stride_h, stride_w, stride_c,
    FRAMES: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """FRAMES neighbouring outputs of a block of pixels and channels.

    Output t reads slots t, t + 1, t + 2 with taps 0, 1, 2: a slot goes to three outputs, of which two are carried on.
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
            y = tl.minimum(tl.maximum(row + (dy - 1), 0), height - 1)
            x = tl.minimum(tl.maximum(col + (dx - 1), 0), width - 1)
            places += ((y * stride_h + x * stride_w)[:, None] + channel[None, :] * stride_c,)
            for t in tl.static_range(3):
                at = (t * 9 + dy * 3 + dx) * channels + channel
                tap = tl.load(taps + at, mask=channel < channels, other=0.0)
                weights += (tap.to(tl.float32)[None, :],)
    next_1 = tl.zeros((PIXELS, CHANNELS), tl.float32)  # what the next output has so far
    next_2 = tl.zeros((PIXELS, CHANNELS), tl.float32)  # and the one after it
    base = source + batch * stride_b
    to = out + (batch * writes * (height * width) + pixel)[:, None] * channels + channel[None, :]
    stop = tl.minimum(begin + FRAMES, writes)
    for i in tl.range(0, stop - begin + 2, num_stages=1):
        frame = base + (begin + i).to(tl.int64) * stride_t
        now = next_1
        next_1 = next_2
        next_2 = tl.zeros((PIXELS, CHANNELS), tl.float32)
        for k in tl.static_range(9):
            value = tl.load(frame + places[k], mask=inside, other=0.0).to(tl.float32)
            now += value * weights[k * 3 + 2]
            next_1 += value * weights[k * 3 + 1]
            next_2 += value * weights[k * 3]
        if i >= 2:
            done = (begin + i - 2).to(tl.int64) * (height * width) * channels
            tl.store(to + done, now.to(out.dtype.element_ty), mask=inside)


def taps_of(weight: Tensor) -> Tensor:
    """[C, 1, 3, 3, 3] -> [27, C], so that neighbouring channels lie side by side."""
    return weight.reshape(weight.shape[0], TAPS).t().contiguous()


def forward(slots: Tensor, weight: Tensor) -> Tensor:
    """[B, T + 2, h, w, C], any strides -> [B, T, h, w, C]; output t reads slots t, t + 1, t + 2."""
    batch, present, height, width, channels = slots.shape
    writes = present - 2
    out = slots.new_empty(batch, writes, height, width, channels)
    pixels, block = (
        4,
        min(64, next_power_of_2(channels)),
    )  # two channels a thread, taps in registers
    frames = min(_FRAMES, next_power_of_2(max(1, writes)))
    programs = batch * cdiv(writes, frames) * cdiv(height * width, pixels)
    if programs:
        _convolve[(programs, cdiv(channels, block))](
            slots, taps_of(weight), out, writes, height, width, channels, *slots.stride(),
            FRAMES=frames, PIXELS=pixels, CHANNELS=block, num_warps=4,
        )  # fmt: skip
    return out
