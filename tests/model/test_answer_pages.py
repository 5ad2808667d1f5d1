"""What a table of pages says is the cache it stands for, token for token."""

from __future__ import annotations

import ctypes

import pytest
import torch
from torch import Tensor

from spatial_ttt.model import answer_pages
from spatial_ttt.model.answer_pages import AnswerPages, shape_of
from spatial_ttt.model.bounded_cache import AnchorPolicy, BoundedCache, attend_bounded, empty_cache
from spatial_ttt.model.kv_cache import KVCache, append, branch

PAGE, HEADS, DIM = 16, 2, 4


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    monkeypatch.setattr(answer_pages, "PAGE", PAGE)
    monkeypatch.setattr("spatial_ttt.model.kv_cache.PAGE_TOKENS", 3 * PAGE)
    with torch.no_grad():
        yield


def pair(count: int, seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, 1, HEADS, count, DIM, generator=g)
    return keys, values


def table_of(cache: KVCache | BoundedCache, count: int = 100) -> AnswerPages:
    shape = shape_of(cache, count)
    assert shape is not None
    numbers = torch.full((2,), 77)
    pages = AnswerPages(torch.empty(1, HEADS, 1, DIM), shape, numbers)
    pages.load(cache)
    return pages


def address(pages: AnswerPages, which: int, head: int, token: int) -> int:
    """Where the kernel reads and writes one token's numbers."""
    past = pages.past
    row = past.table[token // past.page].tolist()
    at = row[which] + head * row[2] + token % past.page * DIM
    return (past.keys, past.values)[which].data_ptr() + 4 * at


def read(pages: AnswerPages) -> tuple[Tensor, Tensor]:
    """All that counts, as the kernel finds it."""
    first, count = pages.past.numbers.tolist()
    assert first == 0
    found = torch.empty(2, 1, HEADS, count, DIM)
    for which in (0, 1):
        for head in range(HEADS):
            for token in range(count):
                at = address(pages, which, head, token)
                numbers = (ctypes.c_float * DIM).from_address(at)
                found[which, 0, head, token] = torch.tensor(list(numbers))
    return found[0], found[1]


def push(pages: AnswerPages, keys: Tensor, values: Tensor) -> None:
    """What a captured step does with one token."""
    pages.make_room()
    count = int(pages.past.numbers[1])
    for which, x in enumerate((keys, values)):
        for head in range(HEADS):
            row = x[0, head, 0].contiguous()
            ctypes.memmove(address(pages, which, head, count), row.data_ptr(), 4 * DIM)
    pages.past.numbers[1] += 1
    pages.advance()


def equal(pages: AnswerPages, wanted: tuple[Tensor, Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(read(pages), wanted, strict=True))


@pytest.mark.parametrize("seen", [0, 5, 15, 16, 17, 48, 70, 96, 131])
@pytest.mark.parametrize("own", [0, 1, 30])
def test_a_continuation_of_an_exact_cache(seen: int, own: int) -> None:
    if not seen + own:
        return
    cache = append(None, *pair(seen, 0))
    for step in range(2):  # a tail with room behind it
        cache = append(cache, *pair(3, 1 + step))
    fork = branch(cache)
    for piece in (own, 2):
        fork = append(fork, *pair(piece, 9)) if piece else fork
    before = fork.past[0].clone()
    pages = table_of(fork)
    assert equal(pages, fork.past)
    for step in range(40):
        fork = append(fork, *pair(1, 20 + step))
        push(pages, *pair(1, 20 + step))
    assert equal(pages, fork.past)
    assert torch.equal(fork.past[0][:, :, : before.shape[2]], before)


def test_whole_pages_are_shared_and_the_rest_is_copied() -> None:
    cache = append(None, *pair(4 * PAGE + 5, 0))
    pages = table_of(append(branch(cache), *pair(7, 1)))
    shared = [s for s in cache.segments for _ in range(s[0].shape[2] // PAGE)]
    found = pages.past.table[: len(shared), 0] * 4 + pages.past.keys.data_ptr()
    first = [s[0].data_ptr() for s in cache.segments]
    assert len(shared) == 4 and {int(found[0]), int(found[3])} == set(first)
    own = int(pages.past.table[4, 0]) * 4 + pages.past.keys.data_ptr()
    assert not any(
        s[0].data_ptr() <= own < s[0].data_ptr() + 4 * s[0].numel() for s in cache.segments
    )
    assert int(pages.past.numbers[1]) == 4 * PAGE + 12
    pages.clear()
    assert not pages._held


def attend(q: Tensor, past: object, own: object) -> Tensor:
    return q


@pytest.mark.parametrize("seen", [1, 15, 16, 40, 200])
def test_a_bounded_cache_closes_its_blocks(seen: int) -> None:
    cache = empty_cache(AnchorPolicy(1, 2, 2, PAGE, 16))
    _, cache = attend_bounded(pair(seen, 0)[0], *pair(seen, 0), cache, attend)
    pages = table_of(cache)
    for step in range(90):
        # A query sees what was kept when its own block began, and its own block up to itself.
        blocks = [(b.keys, b.values) for b in (*cache.sinks, *cache.older, *cache.recent)]
        blocks += [] if cache.open is None else [cache.open]
        kept = [torch.cat(x, dim=2) for x in zip(*blocks, pair(1, 20 + step), strict=True)]
        _, cache = attend_bounded(pair(1, 0)[0], *pair(1, 20 + step), cache, attend)
        push(pages, *pair(1, 20 + step))
        assert equal(pages, (kept[0], kept[1])), step


def test_what_no_table_describes() -> None:
    for policy in (AnchorPolicy(1, 2, 2, 16, 8), AnchorPolicy(1, 2, 2, 24, 16)):
        assert shape_of(empty_cache(policy), 4) is None
    keys, values = pair(8, 0)
    assert shape_of(append(None, keys, values), 4) == (PAGE, answer_pages.LEAST_ROWS)
    assert shape_of(append(None, keys, values), 20_000) == (PAGE, 2 * answer_pages.LEAST_ROWS)


def test_keys_that_lie_otherwise_are_copied() -> None:
    keys, values = pair(40, 0)
    apart = KVCache((), keys.transpose(2, 3).contiguous().transpose(2, 3), values, 40, [40])
    assert equal(table_of(apart), (keys, values))
