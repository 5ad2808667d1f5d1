"""When a continuation's keys are read through a table, and what it says (the maths: `kernels/attention_checks.py`)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spatial_ttt.model import forked_attention as forked
from spatial_ttt.model import kv_cache
from spatial_ttt.model.kernels import attention, runs
from spatial_ttt.model.kernels.attention import Past

PAGE, HEADS, DIM = 32, 2, 8


def segment(length: int, spare: int = 0) -> tuple[Tensor, Tensor]:
    shape = (1, HEADS, length + spare, DIM)
    return torch.randn(shape)[:, :, :length], torch.randn(shape)[:, :, :length]


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_cache, "PAGE_TOKENS", PAGE)
    monkeypatch.setattr(attention, "applies", lambda x: not torch.is_grad_enabled())
    monkeypatch.setattr(runs, "applies", lambda *pairs: True)

    def copy(sources: runs.Pair, places: runs.Pair) -> None:
        for to, x in zip(places, sources, strict=True):
            to.copy_(x)

    monkeypatch.setattr(runs, "copy", copy)


@torch.no_grad()
def test_only_questions_on_uneven_pasts_go_through_a_table() -> None:
    whole, tail, own = segment(PAGE), segment(5), segment(20)
    few, many = (torch.zeros(1, 4, n, DIM) for n in (20, forked.MOST_QUERIES))
    assert forked.applies(few, [whole, tail], *own)
    assert not forked.applies(few, [whole, whole], *own)  # cuDNN knows this length
    assert not forked.applies(few, [], *own)
    assert not forked.applies(few[:, :, : forked.LEAST_QUERIES - 1], [tail], *own)
    assert not forked.applies(many, [tail], *own)
    assert not forked.applies(few.expand(2, -1, -1, -1), [tail], *own)
    turned = tuple(x.transpose(2, 3).contiguous().transpose(2, 3) for x in tail)
    assert not forked.applies(few, [turned], *own)
    with torch.enable_grad():
        assert not forked.applies(few, [whole, tail], *own)


@torch.no_grad()
@pytest.mark.parametrize("lengths", [(PAGE, PAGE, 5), (5,), (PAGE, 30, 1), (PAGE, 7, PAGE)])
def test_the_table_says_where_pages_lie_and_the_rest_is_copied(
    lengths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[Past, int]] = []

    def attend(q: Tensor, where: Past, num_past: int) -> Tensor:
        told.append((where, num_past))
        return q.transpose(1, 2).flatten(2)

    monkeypatch.setattr(attention, "attend", attend)
    past, own = [segment(n, spare=3) for n in lengths], segment(40, spare=9)
    q = torch.randn(1, 4, 20, DIM)
    assert torch.equal(forked.attend(q, past, *own), q)
    (where, num_past), total = told[0], sum(lengths) + 40
    assert num_past == total - 20 and where.page == PAGE and where.numbers is None
    whole = next((n for n, length in enumerate(lengths) if length != PAGE), len(lengths))
    assert where.table is not None and where.table.shape == (-(-total // PAGE), 3)
    for (keys, values), row in zip(past[:whole], where.table.tolist(), strict=False):
        assert where.keys.data_ptr() + 4 * row[0] == keys.data_ptr()
        assert where.values.data_ptr() + 4 * row[1] == values.data_ptr()
        assert row[2] == keys.stride(1)
    rest = [*past[whole:], own]
    for side, copied in enumerate((where.keys, where.values)):
        assert torch.equal(copied, torch.cat([part[side] for part in rest], dim=2))
    for n, row in enumerate(where.table.tolist()[whole:]):
        assert row == [n * PAGE * DIM, n * PAGE * DIM, where.keys.stride(1)]
