"""Keys and values of an anchor: pages that never change, and a tail that grows in place.

A full tail becomes a page, so nothing is ever copied twice and forks share all but their tails.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

PAGE_TOKENS = 16_384
"""A tail of so many tokens is closed. Attention runs page by page; fewer pages, fewer merges.

All pages have one length: cuDNN plans every new shape for tens of milliseconds, and keeps the plan.
"""

SPARE_TOKENS = 1024
"""Most room that a growing tail gets beyond what it needs."""

Segment = tuple[Tensor, Tensor]
"""Keys and values [B, Hkv, N, Dh] of neighbouring tokens."""


class KVCache(NamedTuple):
    """Keys and values of all tokens seen, the oldest first.

    Without gradients the tail is appended to in place. `high_water` is shared by all holders of its
    buffers: only the one whose end it marks may append in place, any other copies the tail
    first, so a fork never disturbs its parent.
    """

    pages: tuple[Segment, ...]
    keys: Tensor  # [B, Hkv, capacity, Dh], `tail` tokens in use
    values: Tensor
    tail: int
    high_water: list[int]

    @property
    def length(self) -> int:
        """Tokens seen."""
        return self.tail + sum(keys.shape[2] for keys, _ in self.pages)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Pages and tail, in order, without copying; an empty tail is left out."""
        tail = (self.keys[:, :, : self.tail], self.values[:, :, : self.tail])
        return (*self.pages, tail) if self.tail or not self.pages else self.pages

    @property
    def past(self) -> Segment:
        """All keys and values, [B, Hkv, length, Dh] each; copies where there are pages."""
        segments = self.segments
        if len(segments) == 1:
            return segments[0]
        keys, values = zip(*segments, strict=True)
        return torch.cat(keys, dim=2), torch.cat(values, dim=2)

    @property
    def num_bytes(self) -> int:
        """Bytes in use (the tail may have room for `SPARE_TOKENS` more)."""
        return sum(2 * keys.numel() * keys.element_size() for keys, _ in self.segments)


def cache_of(keys: Tensor, values: Tensor) -> KVCache:
    """A cache that holds these keys and values [B, Hkv, N, Dh]."""
    length = keys.shape[2]
    if length <= PAGE_TOKENS or torch.is_grad_enabled():
        return _closed(KVCache((), keys, values, length, [length]))
    first = cache_of(keys[:, :, :PAGE_TOKENS], values[:, :, :PAGE_TOKENS])
    return append(first, keys[:, :, PAGE_TOKENS:], values[:, :, PAGE_TOKENS:])


def append(cache: KVCache | None, keys: Tensor, values: Tensor) -> KVCache:
    """The cache with new keys and values [B, Hkv, L, Dh] at its end."""
    if cache is None:
        return cache_of(keys, values)
    room = PAGE_TOKENS - cache.tail
    if 0 < room < keys.shape[2] and not torch.is_grad_enabled():  # fill the page, then go on
        cache = append(cache, keys[:, :, :room], values[:, :, :room])
        return append(cache, keys[:, :, room:], values[:, :, room:])
    length = cache.tail + keys.shape[2]
    if torch.is_grad_enabled():  # a backward pass may still read the buffers
        old_keys, old_values = cache.keys[:, :, : cache.tail], cache.values[:, :, : cache.tail]
        joined = torch.cat((old_keys, keys), dim=2), torch.cat((old_values, values), dim=2)
        return KVCache(cache.pages, *joined, length, [length])
    cache = reserve(cache, keys.shape[2])
    cache.keys[:, :, cache.tail : length] = keys
    cache.values[:, :, cache.tail : length] = values
    return advanced(cache, keys.shape[2])


def branch(cache: KVCache) -> KVCache:
    """The same keys and values for a continuation, which neither copies the tail nor takes its place."""
    empty = cache.keys.new_empty(*cache.keys.shape[:2], 0, cache.keys.shape[3])
    return KVCache(cache.segments if cache.length else (), empty, empty, 0, [0])


def reserve(cache: KVCache, count: int) -> KVCache:
    """The same cache, whose tail may now take so many tokens in place, and takes nobody else's."""
    length = cache.tail + count
    if cache.high_water[0] == cache.tail and cache.keys.shape[2] >= length:
        return cache
    # A long piece is followed by others as long, for which no spare room is enough.
    spare = min(cache.tail, SPARE_TOKENS) if count < SPARE_TOKENS else 0
    return _with_room(cache, max(length, min(length + spare, PAGE_TOKENS)))


def advanced(cache: KVCache, count: int) -> KVCache:
    """The cache after so many tokens were written behind its tail, where `reserve` made room."""
    cache.high_water[0] = cache.tail + count
    return _closed(cache._replace(tail=cache.tail + count))


def _closed(cache: KVCache) -> KVCache:
    """Turn a full tail into a page."""
    if cache.tail < PAGE_TOKENS or torch.is_grad_enabled():
        return cache
    empty = cache.keys.new_empty(*cache.keys.shape[:2], 0, cache.keys.shape[3])
    return KVCache(cache.segments, empty, empty, 0, [0])


def _with_room(cache: KVCache, capacity: int) -> KVCache:
    batch, heads, _, dim = cache.keys.shape
    buffers = []
    for old in (cache.keys, cache.values):
        buffer = old.new_empty(batch, heads, capacity, dim)
        buffer[:, :, : cache.tail] = old[:, :, : cache.tail]
        buffers.append(buffer)
    return KVCache(cache.pages, buffers[0], buffers[1], cache.tail, [cache.tail])


def release(fork: KVCache, parent: KVCache | None) -> None:
    """Give back what a dropped fork appended to the tail it shares with its parent."""
    if parent is None or fork.high_water is not parent.high_water:
        return
    if fork.high_water[0] == fork.tail:
        fork.high_water[0] = parent.tail
