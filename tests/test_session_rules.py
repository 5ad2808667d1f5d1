"""Sessions under other rules: anchors within a budget, other convolutions and norms."""

from __future__ import annotations

from spatial_ttt.model.bounded_cache import AnchorPolicy
from spatial_ttt.session import StreamingSession
from spatial_ttt.testing.small import small_model
from tests.model.streams import same_bits
from tests.scenery import answer, frames, processor, session

BOUNDED = AnchorPolicy(sink_blocks=1, recent_blocks=2, older_blocks=2, block_tokens=16, bits=16)


def test_bounded_anchors_stay_flat_and_ask_as_often_as_you_like():
    watched = session(anchors=BOUNDED, slots_per_piece=2)
    sizes = []
    for start in range(0, 64, 4):
        watched.observe(frames(4, start=start))
        before = watched.state
        assert answer(watched) == answer(watched)
        assert watched.state is before
        sizes.append(watched.stats().anchor_bytes)
    assert max(sizes[4:]) <= 6 * 16 * 2 * 16 * 4 and sizes[0] < sizes[4]
    twin, quiet = watched.fork(), session(anchors=BOUNDED, slots_per_piece=2)
    quiet.observe(frames(64))
    twin.observe(frames(6, start=64))
    assert same_bits(watched.state, quiet.state)
    quiet.observe(frames(6, start=64))
    assert same_bits(twin.state, quiet.state)


def test_other_rules_stream_too():
    for rule in (
        {"convolution": "causal"},
        {"convolution": "none", "norm_placement": "pre"},
        {"low_rank": 2},
    ):
        other = small_model(chunk_size=40, window_size=40, **rule)
        one, many = (StreamingSession(other, processor(), slots_per_piece=n) for n in (1, 8))
        one.observe(frames(9))
        many.observe(frames(9))
        assert answer(one) == answer(many)
