"""Keys and values at fixed addresses: what slides and what is paged says the same as what is copied together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spatial_ttt.model.kv_cache import append
from spatial_ttt.model.steady_graphs import Moves
from spatial_ttt.model.steady_window import PageTable, SlidingWindow


def pair(count: int, seed: int, dim: int = 4) -> tuple[Tensor, Tensor]:
    keys, values = torch.randn(2, 1, 2, count, dim, generator=torch.Generator().manual_seed(seed))
    return keys, values


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_window_slides_over_its_room_and_back(count: int) -> None:
    size = 8
    window = pair(size, 0)
    sliding = SlidingWindow(window, count)
    address, moves = sliding.past.keys.data_ptr(), 0
    for step in range(1, 20):
        fresh = pair(count, step)
        assert sliding.takes(count)
        before = sliding.start
        sliding.make_room(count)
        moves += sliding.start < before
        assert int(sliding.past.numbers[0]) == sliding.start
        place = sliding.start + size
        for to, x in zip(sliding.past[:2], fresh, strict=True):
            to[:, :, place : place + count] = x
        window = tuple(torch.cat(both, 2)[:, :, -size:] for both in zip(window, fresh, strict=True))
        for found, wanted in zip(sliding.advance(count), window, strict=True):
            assert torch.equal(found, wanted)
        assert sliding.past.keys.data_ptr() == address
    assert moves  # the room is smaller than what came


def test_another_window_of_its_size_is_copied_in() -> None:
    sliding, other = SlidingWindow(pair(6, 0), 2), pair(6, 1)
    sliding.make_room(2)
    sliding.advance(2)
    moves = Moves()
    loaded = sliding.load(other, moves)
    moves.make()
    for found, wanted in zip(loaded, other, strict=True):
        assert torch.equal(found, wanted)
    assert sliding.start == 0 and not sliding.takes(100)
    same = sliding.view
    assert sliding.load(same, moves)[0].data_ptr() == same[0].data_ptr()


def test_a_table_points_at_the_rows_of_every_page() -> None:
    cache = None
    for step in range(3):
        cache = append(cache, *pair(5, step))
    assert cache is not None
    table = PageTable(cache, 1 << 14)
    table.point_at(cache)
    past = table.past
    assert int(past.numbers[1]) == cache.length == 15
    first, other, stride = past.table[0].tolist()
    size = cache.keys.element_size()
    assert past.keys.data_ptr() + first * size == cache.keys.data_ptr()
    assert past.values.data_ptr() + other * size == cache.values.data_ptr()
    assert stride == cache.keys.stride(1)


def test_a_piece_that_would_not_fit_the_last_page_is_not_taken() -> None:
    cache = append(None, *pair(10, 0))
    assert PageTable.takes(cache, 16, 6) and not PageTable.takes(cache, 16, 7)
