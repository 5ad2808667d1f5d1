"""What an answer under way holds of a stream: copied only when it would be written over."""

from __future__ import annotations

import pytest
import torch

from spatial_ttt.errors import SessionError
from spatial_ttt.loans import Loan, check_question, give_back, keep
from spatial_ttt.model.kv_cache import KVCache
from spatial_ttt.model.state import TTTState, tensors
from tests.model.streams import same_bits
from tests.scenery import frames, session


def watched(count: int = 8):
    made = session()
    made.observe(frames(count))
    return made.state


def test_only_what_would_be_written_over_is_copied() -> None:
    state = watched()
    loan = Loan(state)
    layers = [layer for layer in loan.fork.layers if isinstance(layer, TTTState)]
    first, *others = [tensor for layer in layers for tensor in tensors(layer) if tensor.numel()]
    before = state.decoder
    keep([loan], {first.untyped_storage().data_ptr(), first.data_ptr()})
    after = [t for layer in loan.fork.layers if isinstance(layer, TTTState) for t in tensors(layer)]
    places = {tensor.data_ptr() for tensor in after}
    assert first.data_ptr() not in places and any(t.data_ptr() in places for t in others)
    kept = [layer for layer in before.layers if isinstance(layer, TTTState)]
    for old, new in zip(
        kept, (x for x in loan.fork.layers if isinstance(x, TTTState)), strict=True
    ):
        for a, b in zip(tensors(old), tensors(new), strict=True):
            assert torch.equal(a, b)


def test_a_loan_says_whether_its_fork_is_past_the_end() -> None:
    state = watched()
    assert not Loan(state).has_ended and Loan(state).fork is state.decoder
    assert Loan(state, state.decoder).has_ended


def test_a_fork_given_back_leaves_the_parent_as_it_was() -> None:
    one, other = session(), session()
    one.observe(frames(6))
    other.observe(frames(6))
    fork = one.state.decoder
    give_back(fork, one.state.decoder)
    assert any(isinstance(layer, KVCache) for layer in fork.layers)
    one.observe(frames(4, start=6))
    other.observe(frames(4, start=6))
    assert same_bits(one.state, other.state)


def test_a_question_must_ask_something() -> None:
    check_question("How many?")
    with pytest.raises(SessionError, match="ask something"):
        check_question("  \n")
