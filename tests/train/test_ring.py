"""The ring of clips: what stands where, what is drawn from it, and how often."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_ttt.errors import DataError
from spatial_ttt.train.clip_types import KINDS, ClipSpec, Exchanges, Facts, Record, categories
from spatial_ttt.train.ring import LABEL_STRIDE, RARE, ClipRing, kind_weights
from tests.train import clips

SPEC = ClipSpec(num_slots=1, fps=2.0, width=32, height=32)
COUNT, DENSE, PLACE = (
    KINDS.index(kind) for kind in ("object_counting", "dense_view", "route_planning")
)


def record(seed: int, kinds: tuple[int, ...] = (COUNT,)) -> Record:
    """Exchange n of a clip: n + 1 tokens of prompt, two of answer, all of them the seed."""
    many = len(kinds)
    start = np.arange(1, many + 1, dtype=np.int16)
    ids = np.where(np.arange(24) < start[:, None] + 2, seed, 0).astype(np.int16)
    facts = Facts(
        np.full((1, 4), seed, np.float32),
        np.full((1, len(categories())), seed, np.uint8),
        np.full((len(categories()), 2), seed, np.float32),
        np.full(len(categories()), seed, np.float32),
        np.zeros((4, len(categories())), np.uint8),
        np.zeros((4, len(categories())), np.uint8),
    )
    truth = tuple(f"{seed} {n}" for n in range(many))
    named = (ids > 0).astype(np.uint8)
    exchanges = Exchanges(ids, start, start + 2, np.array(kinds, np.uint8), named, truth)
    return Record(seed, seed, exchanges, facts, 0)


def filled(*records: Record) -> ClipRing:
    ring = ClipRing(SPEC, len(records), clips.CPU)
    places = ring.reserve(len(records))
    ring.fill(places, records)
    for place, item in zip(places, records, strict=True):
        ring.frames[place] = item.seed
    return ring


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["fill", "keep", "release", "empty"])))
)
def test_places_are_free_pending_or_ready_and_never_two_of_these(steps) -> None:
    ring = ClipRing(SPEC, 5, clips.CPU)
    held: list[list[int]] = []
    seed = 0
    for count, what in steps:
        if count > ring.capacity - len(ring.pending):
            with pytest.raises(DataError, match="order fewer clips at once"):
                ring.reserve(count)
        else:
            held.append(ring.reserve(count))
        if held and what != "keep":
            places = held.pop(0)
            if what == "release":
                ring.release(places)
            elif places:
                kinds = () if what == "empty" else (COUNT,)
                ring.fill(places, [record(seed := seed + 1, kinds) for _ in places])
        assert ring.pending == {place for places in held for place in places}
        assert {place for place in range(5) if ring.records[place]} == set(ring.ready)
        assert {place: ring.ready.index(place) for place in ring.ready} == ring.where
        assert not ring.pending & set(ring.ready)


def test_the_oldest_clips_make_room() -> None:
    ring = filled(*(record(n) for n in range(1, 5)))
    places = ring.reserve(2)
    assert {r.seed for r in ring.records if r} == {3, 4}
    ring.fill(places, [record(5), record(6)])
    ring.reserve(2)
    assert {r.seed for r in ring.records if r} == {5, 6}


def test_a_batch_keeps_pictures_facts_and_words_together() -> None:
    ring = filled(*(record(n, (COUNT,) * n) for n in range(1, 5)))
    batch = ring.batch(np.random.default_rng(0), 16, 18, kind_weights({"object_counting": 1.0}))
    seeds = batch.frames[:, 0, 0, 0, 0].long()
    assert len(set(seeds.tolist())) > 1
    for row, seed in enumerate(seeds.tolist()):
        assert (batch.pose[row] == seed).all() and (batch.counts[row] == seed).all()
        assert len(batch.truth[row]) == seed  # all of them fit
        for branch, truth in enumerate(batch.truth[row]):
            start, stop = batch.start[row, branch], batch.stop[row, branch]
            assert truth == f"{seed} {int(start) - 1}"
            assert (batch.ids[row, branch, :stop] == seed).all()
            assert not batch.ids[row, branch, stop:].any()
        assert not batch.stop[row, seed:].any()
    assert batch.ids.dtype == torch.long
    assert batch.ids.shape[-1] == 8  # the longest, 6, to the next multiple of 8


@pytest.mark.parametrize("room", [1, 3, 7, 12, 100])
def test_branches_of_a_clip_differ_and_fit_its_room(room: int) -> None:
    """Exchanges of 3 to 8 tokens: none twice, none that would not fit but the first."""
    ring = filled(record(1, (COUNT,) * 6))
    weights = kind_weights({"object_counting": 1.0})
    rng = np.random.default_rng(0)
    for _ in range(20):
        batch = ring.batch(rng, 1, room, weights)
        assert len(set(batch.truth[0])) == len(batch.truth[0]) >= 1
        assert batch.stop.sum() <= room or len(batch.truth[0]) == 1
        left = set(range(6)) - {int(truth.split()[1]) for truth in batch.truth[0]}
        assert all(batch.stop.sum() + n + 3 > room for n in left)


def test_kinds_are_drawn_by_their_weights_however_many_there_are() -> None:
    ring = filled(record(1, (COUNT,) * 9 + (PLACE,)))
    weights = kind_weights({"object_counting": 1.0, "route_planning": 3.0})
    batch = ring.batch(np.random.default_rng(0), 2000, 1, weights)  # room for one only
    assert (batch.kind == PLACE).mean() == pytest.approx(0.75, abs=0.03)


def test_a_kind_without_weight_is_asked_only_where_there_is_nothing_else() -> None:
    ring = filled(record(1, (COUNT, DENSE, DENSE)), record(2, (DENSE,)))
    batch = ring.batch(np.random.default_rng(0), 32, 12, kind_weights({"object_counting": 1.0}))
    seeds = batch.frames[:, 0, 0, 0, 0].numpy()
    assert set(seeds) == {1, 2}
    assert (batch.kind[seeds == 1] == COUNT).all()
    assert (batch.kind[seeds == 2] == DENSE).all()


def test_clips_with_a_rare_question_come_more_often() -> None:
    ring = filled(*(record(n, (RARE, COUNT) if n == 7 else (COUNT,)) for n in range(20)))
    weights = kind_weights({"object_counting": 1.0, "obj_appearance_order": 1.0})
    rng = np.random.default_rng(0)
    batch = ring.batch(rng, 4000, 100, weights)
    share = (batch.frames[:, 0, 0, 0, 0] == 7).float().mean().item()
    # four times as often as in the ring, and among the others as often as any
    assert share == pytest.approx(0.2 + 0.8 / 20, abs=0.03)
    plain = ring.batch(rng, 4000, 100, kind_weights({"object_counting": 1.0}))
    assert (plain.frames[:, 0, 0, 0, 0] == 7).float().mean().item() == pytest.approx(
        0.05, abs=0.015
    )
    ring.reserve(8)
    assert not ring.rare


def test_an_empty_ring_says_so() -> None:
    with pytest.raises(DataError, match="holds no clip yet"):
        ClipRing(SPEC, 2, clips.CPU).batch(np.random.default_rng(0), 1, 1, kind_weights({}))


def test_labels_are_an_eighth_of_the_frames() -> None:
    ring = ClipRing(clips.SPEC, 2, clips.CPU)
    assert ring.category.shape == ring.depth.shape == (2, 8, 32 // LABEL_STRIDE, 64 // LABEL_STRIDE)
