"""Streams made of clips: what was seen twice counts once."""

from __future__ import annotations

import numpy as np
import torch

from spatial_ttt.train.chained import LONGEST_QUESTION, Chain, StreamAsker, chain, chained_spec
from spatial_ttt.train.clip_types import KINDS, categories
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
            assert all(ring.records[place].facts.is_sure[category] for place in places)
            asked += 1
    assert asked >= 6


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
