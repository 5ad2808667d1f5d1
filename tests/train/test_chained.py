"""Streams made of clips: what was seen twice counts once."""

from __future__ import annotations

import numpy as np
import torch

from spatial_ttt.model.layout import num_tokens
from spatial_ttt.train.chained import (
    LONGEST_QUESTION,
    StreamAsker,
    chain,
    chained_spec,
    stream_rows,
)
from spatial_ttt.train.clip_text import clip_prefix, room_for_branch
from spatial_ttt.train.clip_types import KINDS, Chain, categories
from spatial_ttt.train.curriculum import LONG_CHAINS, plan
from spatial_ttt.train.ring import ClipRing
from tests.train import clips

PROMPT = "{question}\nIn one word."


def asker() -> StreamAsker:
    return StreamAsker(
        lambda text: clips.tokenizer().encode(text, add_special_tokens=False), PROMPT
    )


def streams(seed: int = 0):
    ring = clips.ring()
    return ring, chain(ring, asker(), np.random.default_rng(seed), 6, Chain(3))


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
            glimpsed = sum(ring.records[p].facts.glimpsed[category] for p in set(places))
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
        counts, others = clip.facts.counts.copy(), np.zeros_like(clip.facts.glimpsed)
        counts[:], others[several] = 0, glimpsed
        counts[-1, several] = seen
        facts = clip.facts._replace(counts=counts, glimpsed=others)
        one = replace(ring, clip._replace(facts=facts))
        batch = chain(one, asker(), np.random.default_rng(0), 1, Chain(1))
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
    assert len(LONG_CHAINS) % 2 and len(LONG_CHAINS) % 3  # against every twelfth step, a blind one
    for made in LONG_CHAINS:
        prefix = clip_prefix(clips.tokenizer(), chained_spec(spec, made))
        assert room_for_branch(prefix, 128) >= LONGEST_QUESTION
        assert stream_rows(24, made) * num_tokens(prefix.layout) <= 1.4 * step


def test_at_half_the_rate_every_second_frame_is_seen_and_counts_keep_up() -> None:
    ring = clips.ring()
    whole = chain(ring, asker(), np.random.default_rng(3), 2, Chain(2))
    half = chain(ring, asker(), np.random.default_rng(3), 2, Chain(2, 2))
    spec = chained_spec(ring.spec, Chain(2, 2))
    assert spec.fps == ring.spec.fps / 2 and spec.num_frames == ring.spec.num_frames
    assert torch.equal(half.frames, whole.frames[:, ::2])
    # A slot of two frames spans two of the whole clip: what was seen by the end of the second.
    assert torch.equal(half.counts, whole.counts[:, 1::2])
    assert half.truth == whole.truth
