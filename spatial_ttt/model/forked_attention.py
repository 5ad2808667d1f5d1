"""Attention of a continuation: its parent's whole pages are read where they lie, in one launch with all the rest.

A continuation's keys are cut anywhere: the stream's pages, what its tail held when the question came, and its own. Part
by part that is a dozen launches a layer, for which a question would wait, and cuDNN plans each new length for tens of
milliseconds. So what does not fill a page is copied together, and a table says where pages begin.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spatial_ttt.model import kv_cache
from spatial_ttt.model.kernels import attention, runs
from spatial_ttt.model.kv_cache import Segment

LEAST_QUERIES = 16
"""Fewer are not worth the copy."""

MOST_QUERIES = 4096
"""More are a piece of a recording, which cuDNN reads a third faster."""


def applies(q: Tensor, past: Sequence[Segment], k: Tensor, v: Tensor) -> bool:
    """q [1, H, L, Dh] continues a past of whole pages and something less, and the kernels run."""
    few = q.shape[0] == 1 and LEAST_QUERIES <= q.shape[2] < MOST_QUERIES
    if not few or all(keys.shape[2] == kv_cache.PAGE_TOKENS for keys, _ in past):
        return False
    if not attention.applies(q) or not runs.applies(*past, (k, v)):
        return False
    return all(attention.fits(*segment) for segment in past)


def attend(q: Tensor, past: Sequence[Segment], k: Tensor, v: Tensor) -> Tensor:
    """L tokens over `past` and, causally, the last of N keys k, v [1, Hkv, N, Dh]: q [1, H, L, Dh] -> [1, H, L, Dh]."""
    page, dim = kv_cache.PAGE_TOKENS, q.shape[3]
    whole = 0
    while whole < len(past) and past[whole][0].shape[2] == page:
        whole += 1
    rest = [*past[whole:], (k, v)]
    length = sum(keys.shape[2] for keys, _ in rest)
    shape = (*k.shape[:2], length, dim)
    last = k.new_empty(shape), v.new_empty(shape)
    at = 0
    for segment in rest:
        stop = at + segment[0].shape[2]
        runs.copy(segment, (last[0][:, :, at:stop], last[1][:, :, at:stop]))
        at = stop
    rows = [_row(segment, last) for segment in past[:whole]]
    rows += [(n * dim, n * dim, last[0].stride(1)) for n in range(0, length, page)]
    table = torch.tensor(rows).to(q.device, non_blocking=True)
    where = attention.Past(*last, None, table, page)
    out = attention.attend(q, where, whole * page + length - q.shape[2])
    return out.unflatten(2, (q.shape[1], dim)).transpose(1, 2)


def _row(segment: Segment, base: Segment) -> tuple[int, int, int]:
    """Where a page begins, counted in numbers from the base, and how far apart heads are."""
    keys, values = (
        (x.data_ptr() - origin.data_ptr()) // x.element_size()
        for x, origin in zip(segment, base, strict=True)
    )
    return keys, values, segment[0].stride(1)
