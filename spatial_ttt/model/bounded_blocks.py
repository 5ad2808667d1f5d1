"""A bounded anchor on a GPU: all blocks of a piece in one launch, and no copy of what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spatial_ttt.model.bounded_cache import Block, BoundedCache, close_block
from spatial_ttt.model.kernels import attention
from spatial_ttt.model.kernels.attention import Past


def applies(k: Tensor, cache: BoundedCache) -> bool:
    """The kernel may run on these new keys, and blocks are kept as they were computed."""
    return cache.policy.bits == 16 and bool(k.shape[2]) and attention.applies(k)


class _Plan(NamedTuple):
    """What becomes of blocks, named by their numbers: those kept (sinks, older, latest) and then the piece's own."""

    spans: NDArray[np.int64]  # [own blocks, 4], as `blocks_triton.attend` reads them
    seen: NDArray[
        np.int64
    ]  # [own blocks, width] blocks that each own one sees, itself the last; the rest is not read
    after: BoundedCache  # its blocks are numbers, the open one is left out
    opened: int  # tokens of the last own block if it is not full, else 0


def attend_blocks(
    q: Tensor, k: Tensor, v: Tensor, cache: BoundedCache
) -> tuple[Tensor, BoundedCache]:
    """As `bounded_cache.attend_bounded`: q [B, H, L or 0, Dh]; tokens of the result lie side by side."""
    from spatial_ttt.model.kernels import blocks_triton as kernels

    size, opened = cache.policy.block_tokens, cache.open
    filled = 0 if opened is None else opened[0].shape[2]
    plan = _plan(_without_blocks(cache), filled, k.shape[2])
    fresh = _empty_blocks(k, v, len(plan.spans), size)
    blocks = (*cache.sinks, *cache.older, *cache.recent, *fresh)
    base = k.new_empty(*k.shape[:2], 1, k.shape[3])
    places = _places(blocks, base)
    rows = np.full((len(fresh), 3), size * k.shape[3])
    rows[:, :2] = places[len(blocks) - len(fresh) :]
    numbers = np.array([(0, 0), (0, filled)])
    before, behind, spans, seen, table = _moved((*numbers, plan.spans, places[plan.seen], rows), k)
    past = Past(base, base, before, table, size)
    if opened is not None and filled:
        attention.append(*opened, past)
    attention.append(k, v, past._replace(numbers=behind))
    cache = _with_blocks(plan.after, blocks)
    if plan.opened:
        own = fresh[-1]
        cut = own.keys[:, :, : plan.opened], own.values[:, :, : plan.opened]
        cache = cache._replace(open=cut)
    if not q.shape[2]:
        return q, cache
    out = kernels.attend(q, base, spans, seen, size)
    return out.unflatten(2, (q.shape[1], -1)).transpose(1, 2), cache


def _without_blocks(cache: BoundedCache) -> BoundedCache:
    """Numbers 0, 1, ... in place of the blocks, so that caches of one history are equal; nothing open."""
    sinks, older = len(cache.sinks), len(cache.sinks) + len(cache.older)
    parts = range(sinks), range(sinks, older), range(older, older + len(cache.recent))
    sinks_, older_, recent = (cast(tuple[Block, ...], tuple(part)) for part in parts)
    return cache._replace(sinks=sinks_, older=older_, recent=recent, open=None)


def _with_blocks(cache: BoundedCache, blocks: Sequence[Block]) -> BoundedCache:
    """Blocks in place of their numbers."""
    parts = (cache.sinks, cache.older, cache.recent)
    sinks, older, recent = (
        tuple(blocks[number] for number in cast(tuple[int, ...], part)) for part in parts
    )
    return cache._replace(sinks=sinks, older=older, recent=recent)


@lru_cache(maxsize=16)
def _plan(cache: BoundedCache, filled: int, length: int) -> _Plan:
    """The plan for `length` tokens behind `filled` open ones; all anchors of a model ask for the same one."""
    size, known = cache.policy.block_tokens, (*cache.sinks, *cache.older, *cache.recent)
    cache = cache._replace(length=cache.length + length)
    seen: list[tuple[Any, ...]] = []
    spans: list[tuple[int, int, int, int]] = []
    start, before = 0, filled
    while start < length:
        own = cast(Block, len(known) + len(spans))
        count = min(length - start, size - before)
        kept = (*cache.sinks, *cache.older, *cache.recent)
        seen.append((*kept, own))
        spans.append((start, count, len(kept), before))
        start, before = start + count, (before + count) % size
        if not before:
            cache = close_block(cache, own)
    width = max(map(len, seen))
    table = np.array([(*row, *(0,) * (width - len(row))) for row in seen], np.int64)
    return _Plan(np.array(spans, np.int64), table, cache, before)


def _empty_blocks(k: Tensor, v: Tensor, count: int, size: int) -> list[Block]:
    """Blocks for keys and values like these, each in memory of its own: most are free again when the piece is done."""
    batch, heads, _, dim = k.shape
    return [
        Block(
            k.new_empty(batch, heads, size, dim), v.new_empty(batch, heads, size, dim), None, None
        )
        for _ in range(count)
    ]


def _places(blocks: Sequence[Block], base: Tensor) -> NDArray[np.int64]:
    """Where keys and values begin, [blocks, 2], in numbers from `base`."""
    found = np.array([(block.keys.data_ptr(), block.values.data_ptr()) for block in blocks])
    return (found - base.data_ptr()) // base.element_size()


def _moved(parts: Sequence[NDArray[np.int64]], like: Tensor) -> list[Tensor]:
    """Whole numbers on the device, in one copy that the host does not wait for.

    Each part begins at an even place: kernels are made for addresses that divide by 16 bytes.
    """
    places, stop = [], 0
    for part in parts:
        places.append(stop)
        stop += part.size + part.size % 2
    joined = torch.empty(stop, dtype=torch.long, pin_memory=like.device.type == "cuda")
    whole = joined.numpy()
    for place, part in zip(places, parts, strict=True):
        whole[place : place + part.size] = part.ravel()
    sent = joined.to(like.device, non_blocking=True)
    return [
        sent[place : place + part.size].view(part.shape)
        for place, part in zip(places, parts, strict=True)
    ]
