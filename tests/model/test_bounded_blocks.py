"""Where a bounded anchor is read in one launch, and how blocks are named; its kernel: `kernels/blocks_checks.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_ttt.model import bounded_blocks, bounded_cache
from spatial_ttt.model.bounded_cache import AnchorPolicy, Block, empty_cache


def block(seed: int) -> Block:
    keys, values = torch.randn(2, 1, 2, 4, 8, generator=torch.Generator().manual_seed(seed))
    return Block(keys, values, None, None)


@pytest.mark.parametrize("bits", [8, 16])
def test_on_a_cpu_blocks_are_read_one_by_one(bits: int) -> None:
    cache = empty_cache(AnchorPolicy(1, 2, 2, 4, bits))
    assert not bounded_blocks.applies(torch.randn(1, 4, 3, 8), cache)


def test_blocks_are_found_from_the_base_whatever_lies_between() -> None:
    base, blocks = torch.empty(1, 2, 1, 8), [block(0), block(1), block(2)]
    places = bounded_blocks._places(blocks, base) * base.element_size() + base.data_ptr()
    assert places.tolist() == [[b.keys.data_ptr(), b.values.data_ptr()] for b in blocks]


def test_numbers_come_as_whole_ones_at_even_places_to_where_the_tensor_is() -> None:
    parts = [np.arange(3), np.arange(6).reshape(3, 2), np.arange(1)]
    found = bounded_blocks._moved(parts, torch.zeros(1))
    assert [x.tolist() for x in found] == [x.tolist() for x in parts]
    first = found[0].data_ptr()
    assert all(x.dtype == torch.long and (x.data_ptr() - first) % 16 == 0 for x in found)


@given(
    st.integers(0, 2),
    st.integers(0, 3),
    st.integers(0, 3),
    st.lists(st.integers(1, 23), min_size=1, max_size=6),
)
@settings(derandomize=True, deadline=None)
def test_a_plan_says_what_the_rule_does_block_by_block(
    sinks: int, recent: int, older: int, lengths: list[int]
) -> None:
    """Each token by its number; blocks that each own block sees, and what is kept after every piece."""
    size, seen = 4, 0
    policy = AnchorPolicy(sinks, recent if sinks else max(1, recent), older, size, 16)
    cache = expected = empty_cache(policy)
    for length in lengths:
        tokens = torch.arange(seen, seen + length).view(1, 1, -1, 1).float()
        filled = 0 if cache.open is None else cache.open[0].shape[2]
        plan = bounded_blocks._plan(bounded_blocks._without_blocks(cache), filled, length)
        fresh = [seen - filled + size * n for n in range(len(plan.spans))]
        names: list[Any] = [
            *(b.keys[0, 0, 0].item() for b in (*cache.sinks, *cache.older, *cache.recent)),
            *fresh,
        ]
        for (start, count, kept, before), row in zip(plan.spans, plan.seen, strict=True):
            segments = bounded_cache._kept(expected, torch.float32)
            past = [] if not segments else segments[0][0].flatten().tolist()
            told = [names[n] + i for n in row[:kept] for i in range(size)]
            own = names[row[kept]]
            assert told + list(range(int(own), int(own) + before)) == past
            assert own + before == seen + start
            piece = tokens[:, :, start : start + count]
            expected = bounded_cache._extend(expected, (piece, piece))
        seen += length
        after = bounded_blocks._with_blocks(plan.after, names)
        for name in ("sinks", "older", "recent"):
            blocks = getattr(expected, name)
            assert getattr(after, name) == tuple(b.keys[0, 0, 0].item() for b in blocks)
        assert plan.opened == (0 if expected.open is None else expected.open[0].shape[2])
        assert after[5:] == expected[5:]
        cache = expected


def test_anchors_of_one_history_share_a_plan() -> None:
    policy = AnchorPolicy(1, 2, 2, 4, 16)
    one = empty_cache(policy)._replace(sinks=(block(0),), recent=(block(1), block(2)), num_left=3)
    other = empty_cache(policy)._replace(sinks=(block(3),), recent=(block(4), block(5)), num_left=3)
    plans = [bounded_blocks._plan(bounded_blocks._without_blocks(x), 2, 9) for x in (one, other)]
    assert plans[0] is plans[1]
    moved = bounded_blocks._without_blocks(other._replace(num_left=4))
    assert bounded_blocks._plan(moved, 2, 9) is not plans[0]
