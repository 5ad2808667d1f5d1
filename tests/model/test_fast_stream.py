"""Fast weights of a stream on a GPU: where they lie, when kernels take them (the maths: `kernels/commit_checks.py`)."""

from __future__ import annotations

import pytest
import torch

from spatial_ttt.errors import SessionError
from spatial_ttt.model import fast_stream
from spatial_ttt.model.fast_parameters import FastParameters
from spatial_ttt.model.fast_weights import BriefState, FastInputs, FastWeights, initial_state
from spatial_ttt.model.kernels import commit
from spatial_ttt.model.state import own
from tests.model.streams import model_of

RULE = model_of(torch.float32).config.ttt_config


def parts(batch: int = 2) -> FastWeights:
    return FastWeights(*torch.randn(3, batch, 3, 4, 4).unbind())


@pytest.mark.parametrize("batch", [1, 2])
def test_a_copied_state_lies_as_kernels_want_it(batch):
    apart, together = parts(batch), None
    together = own(apart)
    assert all(torch.equal(a, b) for a, b in zip(apart, together, strict=True))
    found = commit.joined(together)
    assert found.data_ptr() == together.gate.data_ptr()
    assert torch.equal(found, commit.joined(apart))
    assert commit.joined(apart).data_ptr() != apart.gate.data_ptr()


def test_a_copy_does_not_share_memory():
    apart = parts()
    own(apart).up.zero_()
    assert apart.up.abs().sum() > 0


def test_rounded_weights_are_the_weights():
    low = commit.rounded(parts(), torch.bfloat16)
    assert low.shape == (2, 3, 3, 4, 4) and low.dtype == torch.bfloat16


@torch.no_grad()
def test_a_cpu_keeps_to_the_plain_rule():
    query = torch.zeros(1, 2, 5, 256, dtype=torch.bfloat16)
    assert not commit.applies(query, RULE, torch.Size((1, 2, 256, 256)))


@torch.no_grad()
def test_a_continuation_ends_where_it_said():
    parameters = FastParameters(2, 16, 0)
    state = initial_state(parameters.initial(), 1)
    brief = BriefState(*state, 3)
    rows = FastInputs(*torch.zeros(3, 1, 2, 4, 16), torch.zeros(1, 2, 4, 3), torch.zeros(1, 2, 4))
    with pytest.raises(SessionError, match="at most 3 more tokens"):
        fast_stream.scan(brief, rows, torch.ones(2, 3, 16), RULE)
