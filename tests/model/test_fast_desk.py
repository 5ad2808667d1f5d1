"""The desk of long pieces: what is laid on it and taken off (the maths: `kernels/commit_checks.py`)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from spatial_ttt.model import fast_desk
from spatial_ttt.model.fast_weights import FastState, FastWeights
from spatial_ttt.model.state import tensors
from tests.model.streams import model_of, same_bits

RULE = replace(model_of(torch.float32).config.ttt_config, chunk_size=10)


def coming(length: int) -> fast_desk.Unshaped:
    """Tokens of two heads of four channels."""
    fast, rope = torch.randn(1, length, 24), torch.randn(1, length, 2)
    return fast_desk.Unshaped(fast, rope, torch.rand(1, 2, length, 3), torch.rand(1, 2, length), 0)


def weights() -> FastWeights:
    return FastWeights(*torch.randn(3, 1, 2, 4, 4).unbind())


def desk(norm: str = "post", momentum: bool = True) -> fast_desk.Desk:
    rule = replace(RULE, norm_placement=norm, use_momentum=momentum)
    return fast_desk.Desk(fast_desk._kind(coming(1), rule))


def room(
    state: FastState, length: int, norm: str = "post", momentum: bool = True
) -> fast_desk.Room:
    rule = replace(RULE, norm_placement=norm, use_momentum=momentum)
    return fast_desk.room(state, length, rule)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("is_new", [False, True])
def test_a_state_comes_off_the_desk_as_it_was_laid(norm: str, is_new: bool) -> None:
    master = weights() if norm == "pre" and not is_new else None
    past = None if is_new else weights()
    state = FastState(weights(), master, past, weights(), torch.rand(1, 2), 7)
    where = desk(norm)
    where._lay(state, torch.ones(2, 3, 4))
    found = where._taken(room(state, 1, norm), 7)
    assert same_bits(found, state) and found.num_tokens == 7
    theirs = {x.data_ptr() for x in tensors(state)}
    assert not theirs & {x.data_ptr() for x in tensors(found)}


def test_what_a_new_stream_has_not_is_zero_on_the_desk() -> None:
    where = desk("pre")
    full = FastState(weights(), weights(), weights(), weights(), torch.rand(1, 2), 7)
    where._lay(full, torch.ones(2, 3, 4))
    first = FastState(weights(), None, None, None, None, 0)
    where._lay(first, torch.ones(2, 3, 4))
    assert not where.write.any() and not where.sums.any() and not where.betas[where.low].any()
    assert where.total is not None and torch.equal(where.total, where.weights)
    found = where._taken(room(first, 11, "pre"), 3)  # the chunk of ten was written
    assert found.momentum is not None and found.master is not None
    unwritten = where._taken(room(first, 10, "pre"), 3)
    assert unwritten.momentum is None and unwritten.master is None
    place = room(first, 11, momentum=False)
    assert desk(momentum=False)._taken(place, 3).momentum is None


def test_steps_are_of_few_sizes_and_what_is_missing_writes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And a write never makes the rounded weights that the reads before it still need."""
    where, done, read = desk(), [], []
    assert where.sizes == [2, 3, 4, 5, 7, 8, 9, 10]
    monkeypatch.setattr(where, "_work", lambda *step: done.append(step))
    state = FastState(weights(), None, None, weights(), torch.rand(1, 2), 6)
    given = coming(20)  # 4 end the open chunk, 10 fill the next, 6 begin another
    keys = given.fast[:, :, 8:16].unflatten(-1, (2, 4)).transpose(1, 2)

    def rows(fast: torch.Tensor) -> torch.Tensor:
        return fast.unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)

    def lay(
        fast: torch.Tensor,
        _: object,
        rates: Any,
        to: Any,
        count: int,
        eps: float,
        *,
        has_past: bool,
    ) -> None:
        assert eps == 0
        (lr, momentum), (laid, lr_out, beta) = rates, to
        for place, at, x in ((laid, 3, rows(fast)[1:]), (lr_out, 2, lr)):
            place.narrow(at, 0, count).zero_()
            place.narrow(at, 0, fast.shape[1]).copy_(x)
        beta.copy_(momentum.sum(-1) + (beta if has_past else 0))

    def prepare_queries(fast: torch.Tensor, _: object, eps: float, out: torch.Tensor) -> None:
        assert eps == 0
        out.copy_(-rows(fast)[0])

    monkeypatch.setattr(fast_desk.mixing, "lay", lay)
    monkeypatch.setattr(fast_desk.mixing, "prepare_queries", prepare_queries)

    def read_inner(low: torch.Tensor, queries: torch.Tensor, out: torch.Tensor) -> None:
        assert queries is out and out.is_contiguous()
        read.append((low, out.add_(1).shape[2]))

    def read_outer(low: torch.Tensor, inner: torch.Tensor, out: torch.Tensor) -> None:
        assert low.data_ptr() == read[-1][0].data_ptr()
        out.copy_(2 * inner)

    monkeypatch.setattr(fast_desk.kernels, "read_inner", read_inner)
    monkeypatch.setattr(fast_desk.kernels, "read_outer", read_outer)
    first = where.low
    before = given.fast.clone()
    out, new = where.scan(state, given, torch.ones(2, 3, 4), room(state, given.length))
    assert out.data_ptr() == given.fast.data_ptr() and new.num_tokens == 6
    assert done == [(4, False, first), (10, True, 1 - first), (7, True, first)]
    assert torch.equal(out, 2 * (1 - rows(before)[0]))
    assert torch.equal(given.fast[..., 8:], before[..., 8:])
    assert [count for _, count in read] == [4, 10, 7]
    assert [low.data_ptr() for low, _ in read] == [where.lows[s[2]].data_ptr() for s in done]
    assert torch.equal(where.tokens.key[:, :, :6], keys[:, :, 14:])
    assert torch.equal(where.tokens.lr[:, :, :6], given.lr[:, :, 14:])
    assert not where.tokens.lr[:, :, 6:7].any()
    assert new.beta_sum is not None
    _, full, last = given.momentum.split((4, 10, 6), 2)
    assert torch.equal(new.beta_sum, last.sum(-1))
    # The sum of the chunk that was written lies beside it: the write reads it when that of the next is there already.
    assert torch.equal(where.betas[1 - where.low], full.sum(-1))


def test_a_cpu_has_no_desk() -> None:
    state = FastState(weights(), None, None, None, None, 0)
    assert not fast_desk.applies(coming(1).fast, state, RULE)


def test_a_desk_is_for_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_desk.kernels, "applies", lambda *_: True)
    state = FastState(weights(), None, None, None, None, 0)
    fast = coming(1).fast
    assert fast_desk.applies(fast, state, RULE)
    assert not fast_desk.applies(fast.expand(2, -1, -1), state, RULE)
