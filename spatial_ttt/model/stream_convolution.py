"""The convolution of a stream: the slots that a plan releases, where they lie among the tokens at hand.

Shapes: fast [B, queue, C] are the tokens at hand, C channels of query, key and value together; `weight` is
[C, 1, 3, 3, 3]. `is_centred` says whether a slot reads one slot ahead or only slots before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from spatial_ttt.model.convolution import convolve_slots, take_tokens
from spatial_ttt.model.holding import Plan, Stretch
from spatial_ttt.model.kernels import shaping
from spatial_ttt.model.state import Context

FEW_COPIES = 4
"""Tokens between slots are copied so often at most, gaps at equal distances at once; else gathered by an index."""


def kernel_of(weights: Sequence[Tensor]) -> Tensor:
    """Kernels [C, 1, 3, 3, 3] as one; without gradients channels lie side by side, as the kernel reads them."""
    joined = torch.cat(tuple(weights))
    if torch.is_grad_enabled():
        return joined
    return joined.flatten(1).t().contiguous().t().unflatten(1, joined.shape[1:])


def convolve_released(
    fast: Tensor, plan: Plan, context: Context | None, weight: Tensor, is_centred: bool
) -> tuple[Tensor, Context | None]:
    """The released tokens [B, released, C], slots convolved and text as it was, and the context to carry on."""
    if plan.is_flat:
        row, of_all = as_one_row(fast, plan)
        return convolve_released(row, of_all, None, weight, is_centred)[0].view_as(fast), None
    if shaping.applies(fast) and all(_spacings(plan)):
        return _in_place(fast, plan, context, weight, is_centred)
    kept = context if plan.keeps_context else None
    released = fast[:, : plan.released]
    for stretch in plan.stretches:
        slots = _with_context(fast, stretch, context, is_centred)
        height, width = stretch.grid
        index = _token_index(stretch.starts, height * width, fast.device)
        released = released.index_copy(1, index, convolve_slots(slots, weight).flatten(1, 3))
        if stretch.stays_open:
            keep = slots[:, -2:-1] if is_centred else slots[:, -2:]
            kept = Context(keep if torch.is_grad_enabled() else keep.clone(), stretch.grid)
    return released, kept


def as_one_row(fast: Tensor, plan: Plan) -> tuple[Tensor, Plan]:
    """Rows of different layouts one behind the other, [1, B * queue, C], and what is done with them then."""
    rows, length, channels = fast.shape
    if not plan.is_flat:
        return fast, plan
    return fast.reshape(1, -1, channels), plan._replace(released=rows * length, is_flat=False)


def _in_place(
    fast: Tensor, plan: Plan, context: Context | None, weight: Tensor, is_centred: bool
) -> tuple[Tensor, Context | None]:
    """The same for slots at equal distances, without copying them together."""
    from spatial_ttt.model.kernels import stream_convolution_triton as kernel
    from spatial_ttt.model.kernels.convolution_triton import taps_of

    fast = fast.contiguous()
    released = fast.new_empty(fast.shape[0], plan.released, fast.shape[2])
    _copy_gaps(released, fast, plan)
    kept = context if plan.keeps_context else None
    taps = taps_of(weight)
    behind = 1 if is_centred else 2
    for stretch, spacing in zip(plan.stretches, _spacings(plan), strict=True):
        starts, (height, width) = stretch.starts, stretch.grid
        past = context.slots if stretch.follows and context is not None else None
        if past is not None and past.shape[1] < behind:
            past = past.expand(-1, behind, -1, -1, -1)
        present = len(starts) + (stretch.next_start is not None)
        slots = kernel.Slots(starts[0], spacing, len(starts), present, stretch.grid)
        kernel.convolve_into(released, fast, slots, past, taps, behind)
        if stretch.stays_open:
            last = [fast[:, at : at + height * width] for at in starts[-behind:]]
            keep = torch.stack(last, dim=1).unflatten(2, (height, width))
            if keep.shape[1] < behind:
                keep = torch.cat((keep if past is None else past[:, -1:], keep), dim=1)
            kept = Context(keep, stretch.grid)
    return released, kept


def _copy_gaps(released: Tensor, fast: Tensor, plan: Plan) -> None:
    """Tokens that no stretch convolves, as they are; both [B, tokens, C] side by side."""
    rows = _rows_of_gaps(plan)
    if len(rows) > FEW_COPIES:
        between = _gap_index(plan, fast.device)
        from spatial_ttt.model.kernels.convolution_gradient_triton import copy_tokens

        if fast.shape[0] == 1 or fast.shape[1] == released.shape[1]:
            copy_tokens(released, fast, between)
        else:
            released.index_copy_(1, between, fast.index_select(1, between))
        return
    for first, gaps, apart, size in rows:
        if gaps == 1:
            released[:, first : first + size] = fast[:, first : first + size]
            continue
        batch, _, channels = fast.shape
        to, x = (
            whole.as_strided(
                (batch, gaps, size, channels),
                (whole.stride(0), apart * channels, channels, 1),
                whole.storage_offset() + first * channels,
            )
            for whole in (released, fast)
        )
        to.copy_(x)


def _with_context(
    fast: Tensor, stretch: Stretch, context: Context | None, is_centred: bool
) -> Tensor:
    """[B, T + 2, h, w, C]: the released slots between their neighbours in time."""
    height, width = stretch.grid
    ahead = () if stretch.next_start is None else (stretch.next_start,)
    index = _token_index(stretch.starts + ahead, height * width, fast.device)
    slots = take_tokens(fast, index).unflatten(1, (-1, height, width))
    before = slots[:, :1] if not stretch.follows or context is None else context.slots
    if not is_centred:
        return torch.cat(
            (before if before.shape[1] == 2 else before.expand(-1, 2, -1, -1, -1), slots), dim=1
        )
    after = () if ahead else (slots[:, -1:],)
    return torch.cat((before, slots, *after), dim=1)


@lru_cache(maxsize=4096)
def _gaps(plan: Plan) -> tuple[tuple[int, int], ...]:
    """Where released tokens lie that no stretch convolves: (first, one after the last) of each run."""
    slots = sorted(
        (start, start + stretch.grid[0] * stretch.grid[1])
        for stretch in plan.stretches
        for start in stretch.starts
    )
    edges = [0, *(edge for slot in slots for edge in slot), plan.released]
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return tuple((start, stop) for start, stop in pairs if start < stop)


class _Row(NamedTuple):
    """Gaps of one size at equal distances."""

    first: int  # token
    gaps: int
    apart: int  # tokens from gap to gap
    size: int


@lru_cache(maxsize=4096)
def _rows_of_gaps(plan: Plan) -> tuple[_Row, ...]:
    rows: list[_Row] = []
    for start, stop in _gaps(plan):
        size = stop - start
        if rows and rows[-1].size == size:
            first, gaps, apart, _ = rows[-1]
            if gaps == 1 or start == first + gaps * apart:
                rows[-1] = _Row(first, gaps + 1, apart if gaps > 1 else start - first, size)
                continue
        rows.append(_Row(start, 1, size, size))
    return tuple(rows)


@lru_cache(maxsize=4096)
def _spacings(plan: Plan) -> tuple[int, ...]:
    """Tokens from slot to slot in every stretch (0: slots are not equally far apart)."""
    return tuple(stretch.spacing for stretch in plan.stretches)


@lru_cache(maxsize=256)
def _gap_index(plan: Plan, device: torch.device) -> Tensor:
    """Indices of the same tokens."""
    with torch.inference_mode(False):  # else the kept tensor could not be used in training
        return _sent(torch.cat([torch.arange(*gap) for gap in _gaps(plan)]), device)


@lru_cache(maxsize=512)
def _token_index(starts: tuple[int, ...], size: int, device: torch.device) -> Tensor:
    """Indices of the tokens of slots that begin at `starts`; kept, since patterns repeat."""
    with torch.inference_mode(False):  # else the kept tensor could not be used in training
        return _sent((torch.tensor(starts)[:, None] + torch.arange(size)).flatten(), device)


def _sent(index: Tensor, device: torch.device) -> Tensor:
    """On the device, without waiting for what it does: layouts are many, in training each pack has its own."""
    if device.type != "cuda":
        return index.to(device)
    return index.pin_memory().to(device, non_blocking=True)
