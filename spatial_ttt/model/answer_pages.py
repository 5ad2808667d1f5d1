"""An anchor's keys and values for the captured steps of an answer: equal pages that a table points at.

A continuation's cache is cut anywhere: the stream's pages, what its tail held when the question came, and the
question's own tokens. Whole pages are read where they lie; what is left over is copied once, and new tokens follow it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spatial_ttt.model.anchor import AnchorCache
from spatial_ttt.model.bounded_cache import Block, BoundedCache, close_block
from spatial_ttt.model.kernels import attention
from spatial_ttt.model.kernels.attention import Past
from spatial_ttt.model.kv_cache import KVCache, Segment

PAGE = 1024
"""Tokens of a page of an exact cache; less than this and what an END let go is all that is copied."""

LEAST_ROWS = 1024
"""Rows of a table: a million tokens in exact pages before work must be captured anew."""

_LEAST_PAGE = 16  # the kernel's tiles of keys are powers of two, and none may lie on two pages

Row = tuple[int, int, int]


def shape_of(cache: AnchorCache, count: int) -> tuple[int, int] | None:
    """Page and rows of the table for a cache and `count` tokens after it; None: no table can say where it lies."""
    if isinstance(cache, BoundedCache):
        policy = cache.policy
        page = policy.block_tokens
        if policy.bits != 16 or page < _LEAST_PAGE or page & (page - 1):
            return None
        return page, policy.max_tokens // page + 1
    rows, needed = LEAST_ROWS, -(-(cache.length + count) // PAGE) + 1
    while rows < needed:
        rows *= 2
    return PAGE, rows


class AnswerPages:
    """Where the device finds one anchor's keys during an answer; token by token it grows as the cache would."""

    def __init__(self, like: Tensor, shape: tuple[int, int], numbers: Tensor) -> None:
        """Caches have the type, heads and channels of `like` [1, Hkv, *, Dh] and this `shape_of`.

        `numbers` [2] is the device's: the tokens of the table, behind a zero. Whoever appends moves it on.
        """
        page, rows = shape
        base = like.new_empty(*like.shape[:2], 1, like.shape[3])
        table = torch.zeros(rows, 3, dtype=torch.long, device=like.device)
        self.past = Past(base, torch.empty_like(base), numbers, table, page)
        self.clear()

    def clear(self) -> None:
        """Let go of what the table points at."""
        self._held: list[Segment] = []  # pages of others, kept alive
        self._bounded: BoundedCache | None = None  # all but its open block, which is ours
        self._rows: list[Row] = []
        self._count = 0

    def load(self, cache: AnchorCache) -> None:
        """Take a cache over; it stays as it is."""
        self.clear()
        if isinstance(cache, KVCache):
            rest = self._share(cache)
        else:
            self._bounded = cache._replace(open=None)
            self._share_blocks()
            rest = [] if cache.open is None else [cache.open]
        self._own(rest)
        self._tell(0)

    def make_room(self) -> None:
        """See that one more token finds room; the device is told."""
        page = self.past.page
        if self._count < len(self._rows) * page:
            return
        if self._bounded is None:
            told = len(self._rows)
            self._own([])
        else:
            keys, values = self._held[-1]
            self._bounded = close_block(self._bounded, Block(keys, values, None, None))
            self._held, self._rows, self._count, told = [], [], 0, 0
            self._share_blocks()
            self._own([])
        self._tell(told)

    def advance(self) -> None:
        """A token was appended; the device knows."""
        self._count += 1

    def _share(self, cache: KVCache) -> list[Segment]:
        """Point at whole pages from the beginning on; what is left over, or lies as no kernel reads it."""
        page, rest = self.past.page, list[Segment]()
        for keys, values in cache.segments:
            is_whole = not rest and attention.fits(keys, values)
            whole = keys.shape[2] // page if is_whole else 0
            self._point(keys, values, whole)
            self._count += whole * page
            if whole * page < keys.shape[2]:
                rest.append((keys[:, :, whole * page :], values[:, :, whole * page :]))
        return rest

    def _share_blocks(self) -> None:
        assert self._bounded is not None
        for block in (*self._bounded.sinks, *self._bounded.older, *self._bounded.recent):
            self._point(block.keys, block.values, 1)
            self._count += self.past.page

    def _own(self, rest: list[Segment]) -> None:
        """Copy what is left over to pages of our own, with room for a token more at least."""
        page, like = self.past.page, self.past.keys
        length = sum(keys.shape[2] for keys, _ in rest)
        pages = length // page + 1
        shape = (*like.shape[:2], pages * page, like.shape[3])
        own = like.new_empty(shape), like.new_empty(shape)
        at = 0
        for segment in rest:
            stop = at + segment[0].shape[2]
            for to, x in zip(own, segment, strict=True):
                to[:, :, at:stop] = x
            at = stop
        self._point(*own, pages)
        self._count += length

    def _point(self, keys: Tensor, values: Tensor, pages: int) -> None:
        """Rows for so many pages from the beginning of keys and values [1, Hkv, N, Dh]."""
        base, size = self.past, keys.element_size()
        first = (keys.data_ptr() - base.keys.data_ptr()) // size
        other = (values.data_ptr() - base.values.data_ptr()) // size
        step = base.page * keys.shape[3]
        rows = ((first + n * step, other + n * step, keys.stride(1)) for n in range(pages))
        self._rows.extend(rows)
        self._held.append((keys, values))

    def _tell(self, told: int) -> None:
        """Tell the device of the rows from `told` on, and of the tokens."""
        table, numbers = self.past.table, self.past.numbers
        assert table is not None and numbers is not None
        table[told : len(self._rows)].copy_(torch.tensor(self._rows[told:]), non_blocking=True)
        numbers[0].zero_()
        numbers[1].fill_(self._count)
