"""Where a bounded anchor is read in one launch, and how blocks are named; its kernel: `kernels/blocks_checks.py`."""

from __future__ import annotations

import pytest
import torch

from spatial_ttt.model import bounded_blocks
from spatial_ttt.model.bounded_cache import AnchorPolicy, Block, empty_cache


def block(seed: int) -> Block:
    keys, values = torch.randn(2, 1, 2, 4, 8, generator=torch.Generator().manual_seed(seed))
    return Block(keys, values, None, None)


@pytest.mark.parametrize("bits", [8, 16])
def test_on_a_cpu_blocks_are_read_one_by_one(bits: int) -> None:
    cache = empty_cache(AnchorPolicy(1, 2, 2, 4, bits))
    assert not bounded_blocks.applies(torch.randn(1, 4, 3, 8), cache)


def test_a_block_is_found_from_the_base_whatever_lies_between() -> None:
    base, known = torch.empty(1, 2, 1, 8), {}
    for one in (block(0), block(1), block(0)):
        keys, values = bounded_blocks._place(one, base, known)
        size = base.element_size()
        assert base.data_ptr() + keys * size == one.keys.data_ptr()
        assert base.data_ptr() + values * size == one.values.data_ptr()
        assert known[id(one)] == (keys, values)


def test_numbers_come_as_whole_ones_to_where_the_tensor_is() -> None:
    found = bounded_blocks._moved([(1, 2), (3, 4)], torch.zeros(1))
    assert found.tolist() == [[1, 2], [3, 4]] and found.dtype == torch.long
