"""A bounded anchor on a GPU: all blocks of a piece in one launch, and no copy of what is kept."""

from __future__ import annotations

import torch
from torch import Tensor

from spatial_ttt.model import bounded_cache
from spatial_ttt.model.bounded_cache import Block, BoundedCache
from spatial_ttt.model.kernels import attention
from spatial_ttt.model.kernels.attention import Past


def applies(k: Tensor, cache: BoundedCache) -> bool:
    """The kernel may run on these new keys, and blocks are kept as they were computed."""
    return cache.policy.bits == 16 and bool(k.shape[2]) and attention.applies(k)


def attend_blocks(
    q: Tensor, k: Tensor, v: Tensor, cache: BoundedCache
) -> tuple[Tensor, BoundedCache]:
    """As `bounded_cache.attend_bounded`: q [B, H, L or 0, Dh]; tokens of the result lie side by side."""
    from spatial_ttt.model.kernels import blocks_triton as kernels

    size = cache.policy.block_tokens
    filled = 0 if cache.open is None else cache.open[0].shape[2]
    fresh = _fill(k, v, cache)
    base = k.new_empty(*k.shape[:2], 1, k.shape[3])
    known: dict[int, tuple[int, int]] = {}
    rows, spans = [], []
    start = 0
    for own in fresh:
        before = filled if not start else 0
        count = min(k.shape[2] - start, size - before)
        kept = (*cache.sinks, *cache.older, *cache.recent)
        rows.append([_place(block, base, known) for block in (*kept, own)])
        spans.append((start, count, len(kept), before))
        start += count
        if before + count == size:
            cache = bounded_cache.close_block(cache._replace(open=None), own)
        else:
            opened = (own.keys[:, :, : before + count], own.values[:, :, : before + count])
            cache = cache._replace(open=opened)
    cache = cache._replace(length=cache.length + k.shape[2])
    if not q.shape[2]:
        return q, cache
    width = max(map(len, rows))
    places = [row + [(0, 0)] * (width - len(row)) for row in rows]
    out = kernels.attend(q, base, _moved(spans, q), _moved(places, q), size)
    return out.unflatten(2, (q.shape[1], -1)).transpose(1, 2), cache


def _fill(k: Tensor, v: Tensor, cache: BoundedCache) -> list[Block]:
    """The open block and the new tokens in blocks of their own; the last may not be full."""
    size, opened = cache.policy.block_tokens, cache.open
    filled = 0 if opened is None else opened[0].shape[2]
    batch, heads, length, dim = k.shape
    fresh = [
        Block(
            k.new_empty(batch, heads, size, dim), v.new_empty(batch, heads, size, dim), None, None
        )
        for _ in range(-(-(filled + length) // size))
    ]
    base = k.new_empty(batch, heads, 1, dim)
    rows = [(*_place(block, base, {}), size * dim) for block in fresh]
    numbers = _moved([(0, 0), (0, filled)], k)
    past = Past(base, base, numbers[0], _moved(rows, k), size)
    if opened is not None and filled:
        attention.append(*opened, past)
    attention.append(k, v, past._replace(numbers=numbers[1]))
    return fresh


def _place(block: Block, base: Tensor, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Where keys and values begin, in numbers from `base`."""
    if id(block) not in known:
        first, size = base.data_ptr(), base.element_size()
        keys, values = block.keys.data_ptr(), block.values.data_ptr()
        known[id(block)] = ((keys - first) // size, (values - first) // size)
    return known[id(block)]


def _moved(numbers: object, like: Tensor) -> Tensor:
    """Whole numbers on the device; the host does not wait."""
    found = torch.tensor(numbers, dtype=torch.long)
    if like.device.type != "cuda":
        return found
    return found.pin_memory().to(like.device, non_blocking=True)
