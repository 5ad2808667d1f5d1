"""An anchor's cache: pages never move, a tail grows in place, forks share all but what they add."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spatial_ttt.model import kv_cache
from spatial_ttt.model.kv_cache import append, cache_of, release


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def tokens(length: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, 2, 2, length, 4, generator=g, dtype=torch.float64)
    return keys, values


def equal(cache, *parts: tuple[Tensor, Tensor]) -> bool:
    expected = [torch.cat([p[i] for p in parts], dim=2) for i in (0, 1)]
    return all(torch.equal(a, b) for a, b in zip(cache.past, expected, strict=True))


def test_a_tail_grows_by_doubling_and_appends_in_place():
    parts = [tokens(2)]
    cache, buffers = append(None, *parts[0]), set()
    for step in range(30):
        parts.append(tokens(1, seed=step))
        cache = append(cache, *parts[-1])
        buffers.add(cache.keys.data_ptr())
        assert equal(cache, *parts)
    assert len(buffers) <= 5 and cache.length == 32
    assert cache.num_bytes == 2 * 32 * 2 * 2 * 4 * 8


def test_a_full_tail_becomes_a_page_that_never_moves(monkeypatch):
    monkeypatch.setattr(kv_cache, "PAGE_TOKENS", 6)
    parts, cache, where = [], None, {}
    for step in range(20):
        parts.append(tokens(2, seed=step))
        cache = append(cache, *parts[-1])
        for number, (keys, _) in enumerate(cache.pages):
            assert where.setdefault(number, keys.data_ptr()) == keys.data_ptr()
    assert equal(cache, *parts) and cache.length == 40
    assert [k.shape[2] for k, _ in cache.pages] == [6] * 6 and cache.tail == 4
    assert sum(k.shape[2] for k, _ in cache.segments) == 40
    assert cache.num_bytes == 2 * 40 * 2 * 2 * 4 * 8


def test_pages_have_one_length_however_the_tokens_come(monkeypatch):
    monkeypatch.setattr(kv_cache, "PAGE_TOKENS", 6)
    for sizes in ([1] * 20, [5] * 4, [13, 7], [20], [2, 11, 7], [6, 6, 8]):
        parts, cache = [], None
        for step, size in enumerate(sizes):
            parts.append(tokens(size, seed=step))
            cache = append(cache, *parts[-1])
        assert equal(cache, *parts)
        assert [k.shape[2] for k, _ in cache.pages] == [6, 6, 6] and cache.tail == 2


def test_a_long_tail_has_little_room_to_spare(monkeypatch):
    monkeypatch.setattr(kv_cache, "SPARE_TOKENS", 3)
    cache = append(None, *tokens(2))
    for step in range(40):
        cache = append(cache, *tokens(1, seed=step))
        assert cache.keys.shape[2] <= cache.tail + 3
    assert cache.tail == 42


def test_an_empty_tail_is_no_segment(monkeypatch):
    monkeypatch.setattr(kv_cache, "PAGE_TOKENS", 4)
    cache = append(cache_of(*tokens(4)), *tokens(4, seed=1))
    assert cache.tail == 0 and len(cache.segments) == 2
    assert equal(append(cache, *tokens(1, seed=2)), tokens(4), tokens(4, seed=1), tokens(1, seed=2))


def test_a_fork_copies_before_it_writes_over_its_parent():
    base = append(append(None, *tokens(2)), *tokens(1))
    before = [x.clone() for x in base.past]
    one, two = append(base, *tokens(1, seed=1)), append(base, *tokens(1, seed=2))
    assert one.keys.data_ptr() == base.keys.data_ptr(), "the first one appends in place"
    assert two.keys.data_ptr() != base.keys.data_ptr(), "the second one copies"
    assert equal(one, tokens(2), tokens(1), tokens(1, seed=1))
    assert equal(two, tokens(2), tokens(1), tokens(1, seed=2))
    assert all(torch.equal(a, b) for a, b in zip(base.past, before, strict=True))


def test_forks_on_either_side_of_a_page_border(monkeypatch):
    monkeypatch.setattr(kv_cache, "PAGE_TOKENS", 6)
    base = append(append(None, *tokens(2)), *tokens(1, seed=1))
    closed = append(base, *tokens(4, seed=2))  # a page of 6 and one token
    open_ = append(base, *tokens(1, seed=3))
    more = append(closed, *tokens(2, seed=4))
    assert equal(open_, tokens(2), tokens(1, seed=1), tokens(1, seed=3))
    assert equal(more, tokens(2), tokens(1, seed=1), tokens(4, seed=2), tokens(2, seed=4))
    assert equal(base, tokens(2), tokens(1, seed=1))


def test_a_released_fork_gives_its_place_back():
    base = append(append(None, *tokens(2)), *tokens(1))
    fork = append(base, *tokens(1, seed=1))
    release(fork, base)
    more = append(base, *tokens(1, seed=2))
    assert more.keys.data_ptr() == base.keys.data_ptr()
    assert equal(more, tokens(2), tokens(1), tokens(1, seed=2))


def test_releasing_what_is_not_shared_or_has_moved_on_changes_nothing():
    base = append(append(None, *tokens(3)), *tokens(1))
    one = append(base, *tokens(1, seed=1))
    two = append(base, *tokens(1, seed=2))  # has its own buffers
    release(two, base)
    release(one, None)
    assert base.high_water == [5]
    further = append(one, *tokens(1, seed=3))
    release(one, base)  # somebody has gone on from it
    assert base.high_water == [6]
    assert equal(further, tokens(3), tokens(1), tokens(1, seed=1), tokens(1, seed=3))


def test_with_gradients_nothing_is_written_in_place():
    base = append(append(None, *tokens(2)), *tokens(1))
    with torch.enable_grad():
        more = append(base, *tokens(1, seed=1))
    assert more.keys.data_ptr() != base.keys.data_ptr() and more.keys.shape[2] == 4
    assert base.high_water == [3]
