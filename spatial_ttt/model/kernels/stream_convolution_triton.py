"""The depthwise convolution on a stream's own memory: slots are read and written where their tokens lie.

Forward only. Equal to gathering the slots of a stretch, joining their neighbours in time, `convolution` and
scattering the result back, without the copies. A program walks along time with a stretch of a row and carries two sums
a pixel, so every slot is read three times and a little more, from the caches.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator,assignment,var-annotated"
# Kernels are Triton's language, which has no types of Python's.
from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from spatial_ttt.model.kernels.sizes import cdiv, next_power_of_2

_FRAMES = 32  # outputs a program makes one after the other
_COLUMNS = (5, 6, 4, 7, 3, 2, 1)  # pixels of a row, the first that divides it
_CHANNELS = 128
_WARPS = 1


class Slots(NamedTuple):
    """Slots that stand at equal distances among the tokens of a piece."""

    first: int  # token of the first slot
    stride: int  # tokens from slot to slot
    count: int  # slots to convolve
    present: int  # slots that may be read: one more when the stream reads ahead
    grid: tuple[int, int]


@triton.jit
def _around(base, past, number, places, inside, present, size, step, BEHIND: tl.constexpr, HAS_BEFORE: tl.constexpr,
            COLUMNS: tl.constexpr, ALL: tl.constexpr, EVEN: tl.constexpr):  # fmt: skip
    """What the pixels of a stretch of a row and their neighbours hold in a frame, three rows of COLUMNS + 2 pixels.

    Frames are counted from the first that is read. `places` are those of the left neighbour, the stretch and the right
    neighbour in each row; ALL is the number of channels.
    """
    read = number - BEHIND
    slot = tl.minimum(tl.maximum(read, 0), present - 1).to(tl.int64)
    frame = base + slot * step
    if HAS_BEFORE:  # noqa: SIM102 - decided when compiling, the other when running
        if read < 0:
            frame = past + (read + BEHIND).to(tl.int64) * size
    values = ()
    for dy in tl.static_range(3):
        for c in tl.static_range(COLUMNS + 2):
            if c == 0:
                at = frame + places[dy * 3]
            elif c == COLUMNS + 1:
                at = frame + places[dy * 3 + 2]
            else:  # the distance is known when compiling: no address of its own
                at = frame + places[dy * 3 + 1] + (c - 1) * ALL
            values += (tl.load(at),) if EVEN else (tl.load(at, mask=inside, other=0.0),)
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
    fast, before, taps, out, frames, present, height, width, length, out_length, first, stride, BEHIND: tl.constexpr,
    HAS_BEFORE: tl.constexpr, FRAMES: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
    ALL: tl.constexpr,
):  # fmt: skip
    """Output t reads frames t, t + 1, t + 2, of which the first BEHIND come before the stretch."""
    EVEN: tl.constexpr = ALL % CHANNELS == 0
    stretches = width // COLUMNS
    spans = tl.cdiv(frames, FRAMES)
    program = tl.program_id(0)
    left = (program % stretches) * COLUMNS
    row = program // stretches % height
    begin = (program // (stretches * height) % spans) * FRAMES
    batch = (program // (stretches * height * spans)).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < ALL
    weights = ()
    for k in tl.static_range(9):
        for t in tl.static_range(3):
            tap = tl.load(taps + (t * 9 + k) * ALL + channel, mask=inside, other=0.0)
            weights += (tap.to(tl.float32),)
    places = ()
    for dy in tl.static_range(3):
        line = tl.minimum(tl.maximum(row + (dy - 1), 0), height - 1) * width
        places += ((line + tl.maximum(left - 1, 0)) * ALL + channel,)
        places += ((line + left) * ALL + channel,)
        places += ((line + tl.minimum(left + COLUMNS, width - 1)) * ALL + channel,)
    zero = tl.zeros((CHANNELS,), tl.float32)
    next_1 = ()  # what the next outputs have so far
    next_2 = ()  # and the ones after them
    for _ in tl.static_range(COLUMNS):
        next_1 += (zero,)
        next_2 += (zero,)
    base = fast + (batch * length + first) * ALL
    past = before + batch * BEHIND * height * width * ALL
    to = out + (batch * out_length + first + row * width + left) * ALL + channel
    stop = tl.minimum(begin + FRAMES, frames)
    size, step = height * width * ALL, stride * ALL
    values = _around(
        base, past, begin, places, inside, present, size, step, BEHIND, HAS_BEFORE, COLUMNS, ALL, EVEN
    )  # fmt: skip
    for i in tl.range(0, stop - begin + 2, num_stages=1):
        # Asked for before they are needed: a slot's numbers come from far away.
        later = _around(
            base, past, begin + i + 1, places, inside, present, size, step, BEHIND, HAS_BEFORE, COLUMNS, ALL, EVEN
        )  # fmt: skip
        done = to + (begin + i - 2).to(tl.int64) * step
        sums_1 = ()
        sums_2 = ()
        for c in tl.static_range(COLUMNS):
            now, one, two = next_1[c], next_2[c], zero
            for k in tl.static_range(9):
                value = values[(k // 3) * (COLUMNS + 2) + c + k % 3].to(tl.float32)
                now += value * weights[k * 3 + 2]
                one += value * weights[k * 3 + 1]
                two += value * weights[k * 3]
            sums_1 += (one,)
            sums_2 += (two,)
            tl.store(done + c * ALL, now.to(out.dtype.element_ty), mask=inside & (i >= 2))
        next_1, next_2, values = sums_1, sums_2, later


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
    block = min(_CHANNELS, next_power_of_2(channels))
    columns = next(count for count in _COLUMNS if width % count == 0)
    stretches = height * (width // columns)
    grid = (batch * stretches * cdiv(slots.count, frames), cdiv(channels, block))
    _convolve[grid](
        fast, past, taps, out, slots.count, slots.present, height, width, length, out.shape[1], slots.first,
        slots.stride, BEHIND=behind, HAS_BEFORE=before is not None, FRAMES=frames, COLUMNS=columns, CHANNELS=block,
        ALL=channels, num_warps=_WARPS,
    )  # fmt: skip
