"""Bounded anchors: the rule, the law of cutting, the bytes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_ttt.errors import BudgetError, ConfigError
from spatial_ttt.model.attention import attend, attend_past
from spatial_ttt.model.bounded_cache import (
    AnchorPolicy,
    attend_bounded,
    bytes_of_policy,
    check_policy,
    empty_cache,
    policy_within,
)
from spatial_ttt.model.state import tensors
from spatial_ttt.testing.small import small_config


def run(policy: AnchorPolicy, length: int, cuts: list[int], dtype: torch.dtype = torch.float64):
    torch.manual_seed(0)
    q = torch.randn(1, 4, length, 8, dtype=dtype)
    k, v = torch.randn(2, 1, 2, length, 8, dtype=dtype)
    cache, outputs = empty_cache(policy), []
    borders = [0, *sorted({c % (length + 1) for c in cuts}), length]
    for start, stop in pairwise(borders):
        piece = (t[:, :, start:stop] for t in (q, k, v))
        out, cache = attend_bounded(*piece, cache, attend_past)
        outputs.append(out)
    return torch.cat(outputs, dim=2), cache, (q, k, v)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(
    cuts=st.lists(st.integers(0, 200), max_size=12),
    blocks=st.tuples(st.integers(0, 2), st.integers(1, 3), st.integers(0, 3)),
    bits=st.sampled_from([8, 16]),
)
def test_outputs_do_not_depend_on_the_cutting(cuts, blocks, bits):
    policy = AnchorPolicy(*blocks, 5, bits)
    whole, last, _ = run(policy, 83, [])
    pieces, other, _ = run(policy, 83, cuts)
    assert (whole - pieces).norm() <= 1e-10 * whole.norm()
    for a, b in zip(tensors(last), tensors(other), strict=True):
        assert torch.equal(a, b)


def test_nothing_is_lost_before_the_budget_is_full():
    policy = AnchorPolicy(1, 30, 0, 4, 16)
    out, _, (q, k, v) = run(policy, 83, [])
    torch.testing.assert_close(out, attend(q, k, v))


def test_the_rule_by_hand():
    """Blocks 0..11 of 2 tokens: 1 sink, 2 recent, at most 3 older, thinned with a doubling stride."""
    policy = AnchorPolicy(1, 2, 3, 2, 16)
    _, cache, (_, k, _) = run(policy, 24, [])
    number = {float(k[0, 0, 2 * i, 0]): i for i in range(12)}

    def names(blocks):
        return [number[float(block.keys[0, 0, 0, 0])] for block in blocks]

    assert names(cache.sinks) == [0]
    assert names(cache.recent) == [10, 11]
    # Blocks 1..9 left the latest as numbers 0..8: 0, 1, 2, 3 -> 0, 2 | 4 | 6 -> 0, 4 | 8.
    assert names(cache.older) == [1, 5, 9]
    assert cache.stride == 4
    assert cache.length == 24


def test_bytes_stay_flat_and_within_the_promise():
    config = small_config()
    for bits in (8, 16):
        policy = AnchorPolicy(1, 3, 4, 8, bits)
        promised = bytes_of_policy(policy, config, torch.float32)
        held = []
        for length in (200, 400, 800):
            _, cache, _ = run(policy, length, list(range(0, length, 7)), torch.float32)
            held.append(sum(t.numel() * t.element_size() for t in tensors(cache)))
        assert max(held) - min(held) <= 8 * 2 * 2 * 8 * 4  # one open block
        assert max(held) <= promised


def test_eight_bits_cost_little_accuracy():
    exact, _, _ = run(AnchorPolicy(1, 40, 0, 4, 16), 83, [])
    rough, _, _ = run(AnchorPolicy(1, 40, 0, 4, 8), 83, [])
    assert 0 < (exact - rough).norm() / exact.norm() < 1e-2


def test_a_policy_fits_its_budget():
    config = small_config()
    for budget in (20_000, 100_000, 1_000_000):
        policy = policy_within(budget, config, torch.float32, block_tokens=16)
        assert bytes_of_policy(policy, config, torch.float32) <= budget
    with pytest.raises(BudgetError, match="at least"):
        policy_within(100, config, torch.float32)


@pytest.mark.parametrize(
    "policy",
    [AnchorPolicy(0, 0, 4, 8, 16), AnchorPolicy(1, 1, 1, 0, 16), AnchorPolicy(1, 1, 1, 8, 4)],
)
def test_an_unsound_policy_is_refused(policy):
    with pytest.raises(ConfigError):
        check_policy(policy)
