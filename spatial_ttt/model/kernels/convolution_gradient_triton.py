"""Backward pass of the depthwise 3x3x3 convolution in Triton, on slots where they lie.

Slots of B rows and V videos are views [B, V, T, h, w, C] of the tokens, whatever lies between them; a pixel's channels
and a slot's pixels lie side by side. `behind` says what stands in for slots outside a video: 1 (centred) the first
slot before and the last after it, 2 (causal) the first twice before, 0 nothing, for output t then reads slots t to
t + 2 of T + 2. Gradients of stand-ins belong to the slots they stand for. Sums are in float32, in a fixed order.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator,assignment,var-annotated,unreachable"
# Kernels are Triton's language, which has no types of Python's.
from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from spatial_ttt.model.kernels.sizes import cdiv, next_power_of_2

TAPS = 27
_FRAMES = 64  # slots whose gradients a program makes one after the other
_PIXELS = 4
_CHANNELS = 64  # two a thread, with their taps or their sums in registers
_WARPS = 4
_COLUMNS = (5, 4, 3)  # outputs side by side that share what is loaded for a kernel's gradient
_PROGRAMS = 16  # of one warp for the kernel's gradient, on a multiprocessor


@triton.jit
def _around(base, t, reads, step, places, channel, channels, EVEN: tl.constexpr):
    """The gradients of nine outputs around each pixel at time t; nothing where t is outside."""
    frame = base + tl.minimum(tl.maximum(t, 0), reads - 1).to(tl.int64) * step
    valid = (t >= 0) & (t < reads)
    values = ()
    for k in tl.static_range(9):
        if EVEN:  # the places of pixels beyond the grid are held within it
            values += (tl.load(frame + places[k], mask=valid, other=0.0),)
        else:
            mask = valid & (channel < channels)[None, :]
            values += (tl.load(frame + places[k], mask=mask, other=0.0),)
    return values


@triton.jit(do_not_specialize=["videos", "reads", "writes", "height", "width"])
def _backward_slots(
    grad, taps, out, videos, reads, writes, height, width, channels, grad_b, grad_v, grad_t, out_b, out_v, out_t,
    BEHIND: tl.constexpr, FRAMES: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """FRAMES neighbouring slots of a block of pixels and channels.

    Slot s goes into outputs s + BEHIND - k with taps k. A program walks along the outputs' time and carries two sums.
    Where the reading pixel would lie outside, the border pixel reads once more with the tap that points outwards.
    """
    blocks = tl.cdiv(height * width, PIXELS)
    spans = tl.cdiv(writes, FRAMES)
    program = tl.program_id(0)
    pixel = (program % blocks) * PIXELS + tl.arange(0, PIXELS)
    begin = (program // blocks % spans) * FRAMES
    video = program // (blocks * spans)
    batch, video = (video // videos).to(tl.int64), (video % videos).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    row, col = pixel // width, pixel % width
    inside = (pixel < height * width)[:, None] & (channel < channels)[None, :]
    weights = ()
    places = ()
    for dy in tl.static_range(3):
        for dx in tl.static_range(3):
            y, x = row + (1 - dy), col + (1 - dx)
            tap = tl.where(y < 0, 0, tl.where(y >= height, 2, dy)) * 3
            tap += tl.where(x < 0, 0, tl.where(x >= width, 2, dx))
            y = tl.minimum(tl.maximum(y, 0), height - 1)
            x = tl.minimum(tl.maximum(x, 0), width - 1)
            places += ((y * width + x)[:, None] * channels + channel[None, :],)
            for t in tl.static_range(3):
                at = (t * 9 + tap)[:, None] * channels + channel[None, :]
                weights += (tl.load(taps + at, mask=inside, other=0.0).to(tl.float32),)
    next_1 = tl.zeros((PIXELS, CHANNELS), tl.float32)  # what the next slot has so far
    next_2 = tl.zeros((PIXELS, CHANNELS), tl.float32)  # and the one after it
    base = grad + batch * grad_b + video * grad_v
    to = out + batch * out_b + video * out_v + pixel[:, None] * channels + channel[None, :]
    stop = tl.minimum(begin + FRAMES, writes)
    first = begin + BEHIND - 2
    values = _around(base, first, reads, grad_t, places, channel, channels, EVEN)
    for i in tl.range(0, stop - begin + 2, num_stages=1, loop_unroll_factor=2):
        # Asked for before they are needed: gradients come from far away.
        later = _around(base, first + i + 1, reads, grad_t, places, channel, channels, EVEN)
        now = next_1
        next_1 = next_2
        next_2 = tl.zeros((PIXELS, CHANNELS), tl.float32)
        for k in tl.static_range(9):
            value = values[k].to(tl.float32)
            now += value * weights[k * 3]
            next_1 += value * weights[k * 3 + 1]
            next_2 += value * weights[k * 3 + 2]
        if BEHIND > 0:  # of what stands before the first slot
            next_1 += tl.where(begin + i < 2, now, 0.0)
        if BEHIND == 1:  # of what stands after the last
            next_1 += tl.where(first + i == reads - 1, next_2, 0.0)
        if i >= 2:
            done = (begin + i - 2).to(tl.int64) * out_t
            tl.store(to + done, now.to(out.dtype.element_ty), mask=inside)
        values = later


@triton.jit
def _row(start, x, width, mask, COLUMNS: tl.constexpr, STEP: tl.constexpr, WHOLE: tl.constexpr):
    """COLUMNS + 2 neighbours in one row of a slot, from the one left of column x on."""
    values = (tl.load(start + tl.maximum(x - 1, 0) * STEP, mask=mask, other=0.0),)
    for c in tl.static_range(COLUMNS + 1):
        column = x + c
        if c == COLUMNS or not WHOLE:
            column = tl.minimum(column, width - 1)
        values += (tl.load(start + column * STEP, mask=mask, other=0.0),)
    return values


@triton.jit(do_not_specialize=["videos", "reads", "present", "height", "width", "lines", "share"])
def _backward_weight(
    grad, slots, parts, videos, reads, present, height, width, lines, share,
    grad_b, grad_v, grad_t, slots_b, slots_v, slots_t, slots_h,
    BEHIND: tl.constexpr, WIDE: tl.constexpr, STEP: tl.constexpr, CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """A share of the rows of pixels of a block of channels -> 27 sums each in `parts` [programs, 27, WIDE].

    A row of a slot, stand-ins counted, is multiplied by the gradients of the three outputs that read it. Only the sums
    are carried from turn to turn: loaded columns that were carried, too, were miscompiled (Triton 3.6, sm_90: wrong
    from the third on, right in the interpreter). Outputs side by side share columns within a turn instead.
    """
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    mask = channel < WIDE
    sums = ()
    for _ in tl.static_range(27):
        sums += (tl.zeros((CHANNELS,), tl.float32),)
    begin = tl.program_id(1) * share
    for line in tl.range(begin, tl.minimum(begin + share, lines), num_stages=1):
        y, image = line % height, line // height
        seen, video = image % (reads + 2), image // (reads + 2)
        batch, video = (video // videos).to(tl.int64), (video % videos).to(tl.int64)
        slot = tl.minimum(tl.maximum(seen - BEHIND, 0), present - 1).to(tl.int64)
        base = slots + batch * slots_b + video * slots_v + slot * slots_t + channel
        top = base + tl.maximum(y - 1, 0).to(tl.int64) * slots_h
        middle = base + y.to(tl.int64) * slots_h
        bottom = base + tl.minimum(y + 1, height - 1).to(tl.int64) * slots_h
        of_row = grad + batch * grad_b + video * grad_v + y.to(tl.int64) * width * WIDE + channel
        for x in tl.range(0, width, COLUMNS, num_stages=1):
            rows = _row(top, x, width, mask, COLUMNS, STEP, WHOLE)
            rows += _row(middle, x, width, mask, COLUMNS, STEP, WHOLE)
            rows += _row(bottom, x, width, mask, COLUMNS, STEP, WHOLE)
            grads = ()
            for t in tl.static_range(3):
                read = seen - t
                valid = mask & (read >= 0) & (read < reads)
                frame = of_row + read.to(tl.int64) * grad_t
                for j in tl.static_range(COLUMNS):
                    here = valid if WHOLE else valid & (x + j < width)
                    grads += (tl.load(frame + (x + j) * WIDE, mask=here, other=0.0),)
            for j in tl.static_range(COLUMNS):
                found = ()
                for t in tl.static_range(3):
                    g = grads[t * COLUMNS + j].to(tl.float32)
                    for dy in tl.static_range(3):
                        for dx in tl.static_range(3):
                            value = rows[dy * (COLUMNS + 2) + j + dx].to(tl.float32)
                            found += (sums[t * 9 + dy * 3 + dx] + g * value,)
                sums = found
    out = parts + tl.program_id(1) * 27 * WIDE + channel
    for k in tl.static_range(27):
        tl.store(out + k * WIDE, sums[k], mask=mask)


@triton.jit(do_not_specialize=["tokens", "stride"])
def _copy(source, out, index, tokens, stride, channels, CHANNELS: tl.constexpr):
    batch = (tl.program_id(0) // tokens).to(tl.int64)
    token = tl.load(index + tl.program_id(0) % tokens)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    at = (batch * stride + token) * channels + channel
    mask = channel < channels
    tl.store(out + at, tl.load(source + at, mask=mask), mask=mask)


def backward_slots(out: Tensor, grad: Tensor, taps: Tensor, behind: int) -> None:
    """Write the gradients of slots [B, V, T, h, w, C] (`behind` 0: of T + 2) from those of outputs, `taps` [27, C]."""
    batch, videos, reads, height, width, channels = grad.shape
    writes = out.shape[2]
    frames = min(_FRAMES, next_power_of_2(writes))
    block = min(_CHANNELS, next_power_of_2(channels))
    programs = batch * videos * cdiv(writes, frames) * cdiv(height * width, _PIXELS)
    if programs:
        _backward_slots[(programs, cdiv(channels, block))](
            grad, taps, out, videos, reads, writes, height, width, channels, *grad.stride()[:3], *out.stride()[:3],
            BEHIND=behind, FRAMES=frames, PIXELS=_PIXELS, CHANNELS=block, EVEN=channels % block == 0,
            num_warps=_WARPS,
        )  # fmt: skip


def backward_weight(grad: Tensor, slots: Tensor, behind: int) -> Tensor:
    """Parts [n, 27, C] whose sum is the gradient of the kernel; of outputs and slots [B, V, T, h, w, C].

    With `behind` 0 there are T + 2 slots, whose rows and pixels may be any distance apart.
    """
    batch, videos, reads, height, width, channels = grad.shape
    block = min(_CHANNELS, next_power_of_2(channels))
    blocks = cdiv(channels, block)
    lines = batch * videos * (reads + 2) * height
    share = cdiv(lines, max(1, _PROGRAMS * _multiprocessors(grad.device) // blocks))
    columns = min(_COLUMNS, key=lambda c: cdiv(width, c) * c)
    parts = grad.new_empty(cdiv(lines, share), TAPS, channels, dtype=torch.float32)
    _backward_weight[(blocks, parts.shape[0])](
        grad, slots, parts, videos, reads, slots.shape[2], height, width, lines, share,
        *grad.stride()[:3], *slots.stride()[:4], BEHIND=behind, WIDE=channels, STEP=slots.stride(4),
        CHANNELS=block, COLUMNS=columns, WHOLE=width % columns == 0, num_warps=1,
    )  # fmt: skip
    return parts


def as_kernel(parts: Tensor, weight: Tensor) -> Tensor:
    """Gradient of the kernel [C, 1, 3, 3, 3] from its parts [n, 27, C]."""
    return parts.sum(0).t().reshape(weight.shape).to(weight.dtype)


def copy_tokens(out: Tensor, source: Tensor, index: Tensor) -> None:
    """Copy some tokens of `source` [B, L, C] to their places in `out`; both lie side by side."""
    batch, length, channels = source.shape
    block = min(1024, next_power_of_2(channels))
    if index.numel():
        _copy[(batch * index.numel(), cdiv(channels, block))](
            source, out, index, index.numel(), length, channels, CHANNELS=block, num_warps=4
        )


@lru_cache(maxsize=8)
def _multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
