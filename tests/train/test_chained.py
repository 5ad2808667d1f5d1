"""Streams made of clips: what was seen twice counts once."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from spatial_ttt.model.layout import num_tokens
from spatial_ttt.train.chained import (
    LONGEST_QUESTION,
    Size,
    chain,
    chained_spec,
    stream_rows,
)
from spatial_ttt.train.clip_text import clip_prefix, room_for_branch
from spatial_ttt.train.clip_types import KINDS, Chain, Needle, categories
from spatial_ttt.train.curriculum import LONG_CHAINS, SHORTEST_STAY, TOUR_CHAINS, plan
from spatial_ttt.train.ring import ClipRing
from spatial_ttt.train.truncated import LONGEST_PART, MOST_PARTS
from tests.train import clips

ROOM = 96


def streams(seed: int = 0):
    ring = clips.ring()
    return ring, chain(ring, clips.asker(), np.random.default_rng(seed), Size(6, ROOM), Chain(3))


def homes(ring, batch) -> list[list[int]]:
    """Which clip each third of each stream is, by its pixels."""
    frames = ring.spec.num_frames
    return [
        [
            next(p for p in ring.ready if torch.equal(ring.frames[p], part))
            for part in row.split(frames)
        ]
        for row in batch.frames
    ]


def test_frames_follow_one_another_and_counts_grow_only_in_new_homes() -> None:
    ring, batch = streams()
    spec = chained_spec(ring.spec, Chain(3))
    assert batch.frames.shape[1] == spec.num_frames and batch.counts.shape[1] == spec.num_slots
    visited = homes(ring, batch)
    assert any(len(set(row)) < 3 for row in visited)  # only two clips: some homes come again
    for row, places in enumerate(visited):
        expected, known, seen = [], set(), torch.zeros(len(categories()), dtype=torch.int)
        for place in places:
            counts = ring.counts[place].int()
            expected.append(seen + (0 if place in known else 1) * counts)
            seen = expected[-1][-1]
            known.add(place)
        assert torch.equal(batch.counts[row], torch.cat(expected))


def test_answers_are_the_counts_at_the_end_of_what_nobody_can_be_unsure_of() -> None:
    ring, batch = streams(1)
    tokenizer = clips.tokenizer()
    asked = 0
    for row, places in enumerate(homes(ring, batch)):
        for n, truth in enumerate(batch.truth[row]):
            start, stop = batch.start[row, n], batch.stop[row, n]
            assert KINDS[batch.kind[row, n]] == "vsc" and 0 < start < stop <= LONGEST_QUESTION
            words = tokenizer.decode(batch.ids[row, n, :start])
            name = words.split("How many different ")[1].split("(s) are there")[0]
            category = categories().index(name)
            assert tokenizer.decode(batch.ids[row, n, start : stop - 1]) == truth
            assert int(truth) == int(batch.counts[row, -1, category])
            glimpsed = sum(ring.records[p].facts.glimpsed[0, category] for p in set(places))
            assert glimpsed <= 0.05 * int(truth)
            (named,) = np.flatnonzero(batch.named[row, n])
            assert batch.named[row, n, named] == category
            assert tokenizer.decode(batch.ids[row, n, : named + 1]).endswith(name)
            asked += 1
    assert asked >= 6


def test_a_count_of_many_may_have_a_few_that_were_only_glimpsed() -> None:
    """Twenty times as many clearly seen: what the benchmark's streams ask about too."""
    ring = clips.ring()
    clip = ring.records[ring.ready[0]]
    several = int(np.argmax(clip.facts.counts[-1]))
    name = categories()[several]
    asked = []
    for seen, glimpsed in ((20, 1), (19, 1), (200, 10), (200, 11)):
        counted, others = np.zeros((2, *clip.facts.counted.shape), np.uint8)
        counted[:, several], others[:, several] = seen, glimpsed
        facts = clip.facts._replace(counted=counted, glimpsed=others)
        one = replace(ring, clip._replace(facts=facts))
        batch = chain(one, clips.asker(), np.random.default_rng(0), Size(1, ROOM), Chain(1))
        asked.append(batch.truth[0] == [str(seen)] and several in batch.named[0])
    assert asked == [True, False, True, False], name


def replace(ring: ClipRing, record) -> ClipRing:
    """A ring of the first clip alone, with another record."""
    one = ClipRing(ring.spec, 1, clips.CPU)
    one.fill(one.reserve(1), [record])
    return one


def test_long_streams_leave_room_for_a_question_and_are_about_as_large_as_a_step() -> None:
    """Of the shipped plans' homes: twenty-four clips a step and GPU, as the shipped model was trained."""
    spec = plan("routes")[-1].spec
    step = 24 * num_tokens(clip_prefix(clips.tokenizer(), spec).layout)
    assert max(made.homes for made in LONG_CHAINS) == 60
    for made in LONG_CHAINS:
        prefix = clip_prefix(clips.tokenizer(), chained_spec(spec, made))
        assert room_for_branch(prefix, 128) >= LONGEST_QUESTION
        assert stream_rows(24, made) * num_tokens(prefix.layout) <= 1.35 * step


def test_an_hour_of_tours_is_learned_from_at_the_cost_of_a_step() -> None:
    stage = plan("hours")[-1]
    step = 24 * num_tokens(clip_prefix(clips.tokenizer(), plan("routes")[-1].spec).layout)
    longest = chained_spec(stage.spec, max(TOUR_CHAINS, key=lambda made: made.homes))
    assert longest.times[-1] == 3599
    assert [made._replace(shortest=1.0) for made in stage.chains] == list(TOUR_CHAINS)
    assert {made.shortest for made in stage.chains} == {SHORTEST_STAY}
    for made in TOUR_CHAINS:
        prefix = clip_prefix(clips.tokenizer(), chained_spec(stage.spec, made))
        assert room_for_branch(prefix, 128) >= 2 * LONGEST_QUESTION  # orders with options fit
        clips_a_step = int(48 * stage.clip_share)
        learned = min(num_tokens(prefix.layout), MOST_PARTS * LONGEST_PART)
        assert stream_rows(clips_a_step, made) * learned <= 1.35 * step


@pytest.mark.parametrize("chains", [LONG_CHAINS, TOUR_CHAINS])
def test_no_stream_is_left_out_for_blind_steps(chains: tuple[Chain, ...]) -> None:
    assert len(chains) % 2 and len(chains) % 3  # against every twelfth step, a blind one


def test_at_half_the_rate_every_second_frame_is_seen_and_counts_keep_up() -> None:
    ring = clips.ring()
    whole = chain(ring, clips.asker(), np.random.default_rng(3), Size(2, ROOM), Chain(2))
    half = chain(ring, clips.asker(), np.random.default_rng(3), Size(2, ROOM), Chain(2, 2))
    spec = chained_spec(ring.spec, Chain(2, 2))
    assert spec.fps == ring.spec.fps / 2 and spec.num_frames == ring.spec.num_frames
    assert torch.equal(half.frames, whole.frames[:, ::2])
    # A slot of two frames spans two of the whole clip: what was seen by the end of the second.
    assert torch.equal(half.counts, whole.counts[:, 1::2])
    assert half.truth == whole.truth


def numbered() -> ClipRing:
    """The two clips with frames that tell clip and frame."""
    source = clips.ring()
    ring = ClipRing(source.spec, 2, clips.CPU)
    ring.fill(ring.reserve(2), [source.records[place] for place in source.ready])
    for place in (0, 1):
        for n in range(ring.spec.num_frames):
            ring.frames[place, n] = 100 * place + n
    return ring


@pytest.mark.parametrize("stride", [1, 2])
def test_stays_of_all_lengths_fill_a_stream_and_show_new_things_once(stride: int) -> None:
    """Counted anew, slot by slot: of each clip its longest beginning has been seen."""
    ring = numbered()
    made = Chain(8, stride, 0.3)
    longest = ring.spec.num_slots // stride
    batch = chain(ring, clips.asker(), np.random.default_rng(0), Size(6, ROOM), made)
    spec = chained_spec(ring.spec, made)
    assert batch.frames.shape[1] == spec.num_frames and batch.counts.shape[1] == spec.num_slots
    lengths = []
    for row, codes in enumerate(batch.frames[:, :, 0, 0, 0].tolist()):
        seen, length = [0, 0], 0
        for slot in range(spec.num_slots):
            place, frame = divmod(codes[2 * slot], 100)
            assert codes[2 * slot + 1] == codes[2 * slot] + stride
            begins = frame == 0
            assert begins or frame == 2 * stride * length
            if begins and slot:
                lengths.append(length)
            length = 1 if begins else length + 1
            seen[place] = max(seen[place], length)
            expected = torch.zeros(len(categories()), dtype=torch.int)
            for place, slots in enumerate(seen):
                if slots:
                    whole = torch.from_numpy(ring.records[place].facts.counted[stride - 1])
                    expected += torch.minimum(ring.counts[place, stride * slots - 1], whole)
            assert torch.equal(batch.counts[row, slot], expected)
        assert {int(truth) for truth in batch.truth[row]} <= set(batch.counts[row, -1].tolist())
    assert set(lengths) == set(range(math.ceil(0.3 * longest), longest + 1))


def remembering(*by: str) -> ClipRing:
    """A clip with a guitar by each of these things and another without; each frame is the clip's number."""
    source = clips.ring()
    clip = source.records[source.ready[0]]
    index = {name: n for n, name in enumerate(categories())}
    made = []
    for place in (*by, None):
        counted = clip.facts.counted.copy()
        counted[:, index["guitar"]] = place is not None
        clear = np.ones(source.spec.num_frames, bool)
        needle = None if place is None else Needle(index["guitar"], index[place], clear)
        made.append(clip._replace(facts=clip.facts._replace(counted=counted), needle=needle))
    ring = ClipRing(source.spec, len(made), clips.CPU)
    places = ring.reserve(len(made))
    ring.fill(places, made)
    for place in places:
        ring.frames[place] = place
    return ring


def test_a_thing_to_remember_stands_in_four_homes_and_is_asked_about_in_their_order() -> None:
    by = ("bed", "desk", "piano", "sofa")
    ring = remembering(*by)
    tokenizer = clips.tokenizer()
    asked = 0
    for made in (Chain(4), Chain(9), Chain(9, 1, 0.3)):
        size = Size(8, 128)
        batch = chain(ring, clips.asker(), np.random.default_rng(made.homes), size, made)
        shown = batch.frames[:, ::2, 0, 0, 0].tolist()
        for row, places in enumerate(shown):
            vsr = [n for n, kind in enumerate(batch.kind[row]) if KINDS[kind] == "vsr"]
            first = [by[p] for p in dict.fromkeys(places) if p < 4]
            if not vsr:
                continue
            assert len(first) == 4
            for n in vsr:
                text = tokenizer.decode(batch.ids[row, n, : batch.start[row, n]])
                options = text.split("Options:\n")[1].split("\n")
                right = options["ABCD".index(batch.truth[row][n])][3:]
                assert right.lower().split(", ") == first
                asked += 1
    assert asked >= 40  # four in each of about three quarters of the streams


def test_without_four_clips_for_it_nothing_is_to_be_remembered() -> None:
    for ring in (remembering("bed", "desk", "bed", "bed"), clips.ring()):
        batch = chain(ring, clips.asker(), np.random.default_rng(0), Size(6, 128), Chain(5))
        assert {KINDS[kind] for kind in batch.kind[batch.stop > 0]} == {"vsc"}


def test_questions_longer_than_the_room_are_left_out() -> None:
    ring = remembering("bed", "desk", "piano", "sofa")
    batch = chain(ring, clips.asker(), np.random.default_rng(0), Size(6, 40), Chain(4))
    kinds = {KINDS[kind] for kind in batch.kind[batch.stop > 0]}
    assert kinds == {"vsc", "dense_recall"} and batch.stop.max() <= 40
