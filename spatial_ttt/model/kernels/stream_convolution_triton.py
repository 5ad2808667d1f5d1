"""The depthwise convolution on a stream's own memory: slots are read and written where their tokens lie.

Forward only. Equal to gathering the slots of a stretch, joining their neighbours in time, `convolution` and
scattering the result back, without the copies. A program walks along time and carries two sums, so every slot is
read nine times, from the caches.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator,assignment"
# Kernels are Triton's language, which has no types of Python's.
from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from spatial_ttt.model.kernels.sizes import cdiv, next_power_of_2

_FRAMES = 64  # outputs a program makes one after the other
_PIXELS = 4
_CHANNELS = 64
_WARPS = 4


class Slots(NamedTuple):
    """Slots that stand at equal distances among the tokens of a piece."""

    first: int  # token of the first slot
    stride: int  # tokens from slot to slot
    count: int  # slots to convolve
    present: int  # slots that may be read: one more when the stream reads ahead
    grid: tuple[int, int]


@triton.jit
def _around(base, past, number, places, channel, channels, present, size, step, BEHIND: tl.constexpr,
            HAS_BEFORE: tl.constexpr, EVEN: tl.constexpr):  # fmt: skip
    """What nine neighbours of each pixel hold in a frame, counted from the first that is read."""
    read = number - BEHIND
    slot = tl.minimum(tl.maximum(read, 0), present - 1).to(tl.int64)
    frame = base + slot * step
    if HAS_BEFORE:  # noqa: SIM102 - decided when compiling, the other when running
        if read < 0:
            frame = past + (read + BEHIND).to(tl.int64) * size
    values = ()
    for k in tl.static_range(9):
        if EVEN:  # the places of pixels beyond the grid are held within it
            values += (tl.load(frame + places[k]),)
        else:
            values += (tl.load(frame + places[k], mask=(channel < channels)[None, :], other=0.0),)
    return values


@triton.jit(
    do_not_specialize=[
        "frames",
        "present",
        "height",
        "width",
        "length",
        "out_length",
        "first",
        "stride",
    ]
)
def _convolve(
    fast, before, taps, out, frames, present, height, width, channels, length, out_length, first, stride,
    BEHIND: tl.constexpr, HAS_BEFORE: tl.constexpr, FRAMES: tl.constexpr, PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """Output t reads frames t, t + 1, t + 2, of which the first BEHIND come before the stretch."""
    blocks = tl.cdiv(height * width, PIXELS)
    spans = tl.cdiv(frames, FRAMES)
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
            places += ((y * width + x)[:, None] * channels + channel[None, :],)
            for t in tl.static_range(3):
                at = (t * 9 + dy * 3 + dx) * channels + channel
                tap = tl.load(taps + at, mask=channel < channels, other=0.0)
                weights += (tap.to(tl.float32)[None, :],)
    next_1 = tl.zeros((PIXELS, CHANNELS), tl.float32)  # what the next output has so far
    next_2 = tl.zeros((PIXELS, CHANNELS), tl.float32)  # and the one after it
    base = fast + (batch * length + first) * channels
    past = before + batch * BEHIND * height * width * channels
    to = out + (batch * out_length + first + pixel)[:, None] * channels + channel[None, :]
    stop = tl.minimum(begin + FRAMES, frames)
    size, step = height * width * channels, stride * channels
    values = _around(
        base, past, begin, places, channel, channels, present, size, step, BEHIND, HAS_BEFORE, EVEN
    )
    for i in tl.range(0, stop - begin + 2, num_stages=1):
        # Asked for before they are needed: a slot's numbers come from far away.
        later = _around(
            base, past, begin + i + 1, places, channel, channels, present, size, step, BEHIND, HAS_BEFORE, EVEN
        )  # fmt: skip
        now = next_1
        next_1 = next_2
        next_2 = tl.zeros((PIXELS, CHANNELS), tl.float32)
        for k in tl.static_range(9):
            value = values[k].to(tl.float32)
            now += value * weights[k * 3 + 2]
            next_1 += value * weights[k * 3 + 1]
            next_2 += value * weights[k * 3]
        if i >= 2:
            done = (begin + i - 2).to(tl.int64) * step
            tl.store(to + done, now.to(out.dtype.element_ty), mask=inside)
        values = later


@triton.jit(
    do_not_specialize=["present", "height", "width", "length", "out_length", "first", "stride"]
)
def _convolve_one(
    fast, before, taps, out, present, height, width, channels, length, out_length, first, stride,
    BEHIND: tl.constexpr, HAS_BEFORE: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The same for a stretch of one slot: three frames are read, one is written."""
    blocks = tl.cdiv(height * width, PIXELS)
    program = tl.program_id(0)
    pixel = (program % blocks) * PIXELS + tl.arange(0, PIXELS)
    batch = (program // blocks).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    row, col = pixel // width, pixel % width
    inside = (pixel < height * width)[:, None] & (channel < channels)[None, :]
    base = fast + (batch * length + first) * channels
    past = before + batch * BEHIND * height * width * channels
    acc = tl.zeros((PIXELS, CHANNELS), tl.float32)
    for t in tl.static_range(3):
        ahead = t - BEHIND if t > BEHIND else 0
        slot = tl.minimum(present - 1, ahead).to(tl.int64)
        frame = base + slot * stride * channels
        if HAS_BEFORE and t < BEHIND:
            frame = past + t * height * width * channels
        for dy in tl.static_range(3):
            for dx in tl.static_range(3):
                y = tl.minimum(tl.maximum(row + (dy - 1), 0), height - 1)
                x = tl.minimum(tl.maximum(col + (dx - 1), 0), width - 1)
                place = (y * width + x)[:, None] * channels + channel[None, :]
                value = tl.load(frame + place, mask=inside, other=0.0).to(tl.float32)
                at = (t * 9 + dy * 3 + dx) * channels + channel
                tap = tl.load(taps + at, mask=channel < channels, other=0.0)
                acc += value * tap.to(tl.float32)[None, :]
    to = out + (batch * out_length + first + pixel)[:, None] * channels + channel[None, :]
    tl.store(to, acc.to(out.dtype.element_ty), mask=inside)


def convolve_into(
    out: Tensor, fast: Tensor, slots: Slots, before: Tensor | None, taps: Tensor, behind: int
) -> None:
    """Write the convolved slots of a stretch to their tokens in `out` [B, released, C].

    `fast` [B, queue, C] holds the tokens, `before` [B, behind, h, w, C] the slots before the stretch (None: the
    video begins, its first slot stands in), `taps` [27, C].
    """
    batch, length, channels = fast.shape
    height, width = slots.grid
    past = fast if before is None else before.contiguous()
    if slots.count == 1:
        block = min(128, next_power_of_2(channels))
        _convolve_one[(batch * cdiv(height * width, 8), cdiv(channels, block))](
            fast, past, taps, out, slots.present, height, width, channels, length, out.shape[1], slots.first,
            slots.stride, BEHIND=behind, HAS_BEFORE=before is not None, PIXELS=8, CHANNELS=block, num_warps=4,
        )  # fmt: skip
        return
    frames = min(_FRAMES, next_power_of_2(slots.count))
    blocks = cdiv(height * width, _PIXELS)
    block = min(_CHANNELS, next_power_of_2(channels))
    grid = (batch * blocks * cdiv(slots.count, frames), cdiv(channels, block))
    _convolve[grid](
        fast, past, taps, out, slots.count, slots.present, height,
        width, channels, length, out.shape[1], slots.first, slots.stride, BEHIND=behind,
        HAS_BEFORE=before is not None, FRAMES=frames, PIXELS=_PIXELS, CHANNELS=block, EVEN=channels % block == 0,
        num_warps=_WARPS,
    )  # fmt: skip
