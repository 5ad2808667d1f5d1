"""Keys and values of captured steps, at fixed addresses: a window that slides, and an anchor's pages."""

from __future__ import annotations

import torch
from torch import Tensor

from spatial_ttt.model.kernels import attention
from spatial_ttt.model.kernels.attention import Past
from spatial_ttt.model.kv_cache import KVCache, Segment
from spatial_ttt.model.steady_graphs import Moves

SPARE = 2  # a window's share of the room it slides over: one part in so many
PAGES = 64  # rows of a fresh table of pages


class SlidingWindow:
    """A full window and room behind it: pieces are appended, and it moves over its room and back."""

    def __init__(self, window: Segment, count: int) -> None:
        """Copies keys and values [B, Hkv, W, Dh]; pieces have `count` tokens."""
        keys, values = window
        self.size = keys.shape[2]
        room = self.size + max(count, min(8 * count, self.size // SPARE))
        shape = (*keys.shape[:2], room, keys.shape[3])
        numbers = torch.zeros(2, dtype=torch.long, device=keys.device)
        numbers[1] = self.size
        self.past = Past(keys.new_empty(shape), values.new_empty(shape), numbers)
        self.start = 0
        for to, x in zip(self.view, window, strict=True):
            to.copy_(x)

    @property
    def view(self) -> Segment:
        """The window as it lies."""
        stop = self.start + self.size
        return self.past.keys[:, :, self.start : stop], self.past.values[:, :, self.start : stop]

    def takes(self, count: int) -> bool:
        """A piece of so many tokens finds room."""
        return self.size + count <= self.past.keys.shape[2]

    def load(self, window: Segment, moves: Moves) -> Segment:
        """Another window of this size here, as soon as the moves are made."""
        if window[0].data_ptr() != self.view[0].data_ptr():
            self.start = 0
            moves.add(self.view, window)
        return self.view

    def make_room(self, count: int) -> None:
        """Tell the device where the window is, after moving it back if the room behind it is too small."""
        if self.start + self.size + count > self.past.keys.shape[2]:
            kept = [x.clone() for x in self.view]  # where it goes may overlap where it is
            self.start = 0
            for to, x in zip(self.view, kept, strict=True):
                to.copy_(x)
        assert self.past.numbers is not None
        self.past.numbers[0].fill_(self.start)

    def advance(self, count: int) -> Segment:
        """The window after a piece was appended."""
        self.start += count
        return self.view


class PageTable:
    """Where the device finds an anchor's pages and how many tokens they hold."""

    def __init__(self, cache: KVCache, page: int) -> None:
        device = cache.keys.device
        base = cache.keys.new_empty(*cache.keys.shape[:2], 1, cache.keys.shape[3])
        self.past = Past(
            base,
            torch.empty_like(base),
            torch.zeros(2, dtype=torch.long, device=device),
            torch.zeros(PAGES, 3, dtype=torch.long, device=device),
            page,
        )
        self._rows: list[tuple[int, int, int]] = []

    @staticmethod
    def takes(cache: KVCache, page: int, count: int) -> bool:
        """The cache can be read page by page, and a piece of so many tokens fits its last page."""
        fits = cache.tail + count <= page and len(cache.pages) < PAGES - 1
        return fits and all(
            keys.shape[2] == page and attention.fits(keys, values) and _is_dense(keys)
            for keys, values in cache.pages
        )

    def point_at(self, cache: KVCache) -> None:
        """Tell the device of this cache, whose tail has room for what is appended next."""
        past = self.past
        assert past.numbers is not None and past.table is not None
        rows = [self._row(*pair) for pair in (*cache.pages, (cache.keys, cache.values))]
        if rows != self._rows:
            past.table[: len(rows)].copy_(torch.tensor(rows), non_blocking=True)
            self._rows = rows
        past.numbers[1].fill_(cache.length)

    def _row(self, keys: Tensor, values: Tensor) -> tuple[int, int, int]:
        size, past = keys.element_size(), self.past
        first = (keys.data_ptr() - past.keys.data_ptr()) // size
        return first, (values.data_ptr() - past.values.data_ptr()) // size, keys.stride(1)


def _is_dense(keys: Tensor) -> bool:
    """Rows of a batch follow each other as heads do."""
    return keys.shape[0] == 1 or keys.stride(0) == keys.shape[1] * keys.stride(1)
