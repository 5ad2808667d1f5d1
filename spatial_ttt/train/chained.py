"""Long streams out of the clips at hand: homes one after another, some of them again, counted over all.

What was counted in a home counts once, however often the home is walked through.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from spatial_ttt.scenes.questions.numbers import spread
from spatial_ttt.scenes.questions.templates import ask_stream_count
from spatial_ttt.scenes.wording import spoken
from spatial_ttt.train.clip_types import KINDS, ClipSpec, Facts, categories
from spatial_ttt.train.devices import to_device
from spatial_ttt.train.encoder import encode_exchange
from spatial_ttt.train.ring import Batch, ClipRing

AGAIN = 0.2  # share of homes that were walked through before
QUESTIONS = 12  # of a stream, at most
LENGTH_STEP = 8  # tokens
LONGEST_QUESTION = 32  # tokens of a counting question with its answer
VSC = KINDS.index("vsc")


class Chain(NamedTuple):
    """How a stream is made of clips."""

    homes: int
    """Clips in a row."""
    stride: int = 1
    """Every so many-th frame is shown: 2 halves the rate."""


CHAINS = (Chain(2), Chain(6, 2), Chain(4), Chain(12, 2), Chain(8), Chain(20, 2))
"""Streams of a run, by turns."""


def chained_spec(spec: ClipSpec, made: Chain) -> ClipSpec:
    """The shape of a stream of clips."""
    slots = made.homes * (spec.num_slots // made.stride)
    return dataclasses.replace(spec, num_slots=slots, fps=spec.fps / made.stride)


class StreamAsker:
    """Counting questions over streams, as token ids; each is encoded once."""

    def __init__(self, encode: Callable[[str], list[int]], prompt: str) -> None:
        """`prompt` has a place for {question}."""
        self.encode, self.prompt = encode, prompt
        self.known: dict[tuple[str, int], tuple[list[int], int]] = {}

    def ask(self, category: str, count: int) -> tuple[list[int], int]:
        """Tokens of question and answer, and the index of the first of the answer."""
        key = (category, count)
        if key not in self.known:
            words = self.prompt.format(question=ask_stream_count(category))
            head, tail = encode_exchange(self.encode, words, str(count))
            self.known[key] = (head + tail, len(head))
        return self.known[key]


def chain(ring: ClipRing, asker: StreamAsker, rng: Generator, rows: int, made: Chain) -> Batch:
    """`rows` streams of clips; only `counts` of the dense arrays is filled."""
    places, is_new = _itineraries(ring, rng, rows, made.homes)
    index = to_device(places, ring.device)
    fresh = to_device(is_new, ring.device)[..., None, None]
    counts = ring.counts[index].int() * fresh  # [R, H, S, K]
    before = counts[:, :, -1].cumsum(1) - counts[:, :, -1]
    last = slice(made.stride - 1, None, made.stride)  # of the slots that become one
    so_far = (before[:, :, None] + counts)[:, :, last].flatten(1, 2)
    shown = slice(0, made.stride * 2 * (ring.spec.num_slots // made.stride), made.stride)
    asked = [
        _questions(ring, asker, rng, p[n].tolist()) for p, n in zip(places, is_new, strict=True)
    ]
    ids, start, stop, truth = _table(asked)
    none = ring.place[:0]
    return Batch(
        frames=ring.frames[index][:, :, shown].flatten(1, 2),
        ids=to_device(ids, ring.device),
        start=start,
        stop=stop,
        kind=np.full_like(start, VSC),
        named=np.zeros_like(ids),
        truth=truth,
        category=none,
        depth=none,
        pose=none,
        counts=so_far,
        place=none,
        first=none,
    )


def _itineraries(
    ring: ClipRing, rng: Generator, rows: int, homes: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Places in the ring [R, H], and which of them are seen for the first time."""
    ready = np.array(ring.ready)
    places = ready[rng.integers(len(ready), size=(rows, homes))]
    is_new = np.ones((rows, homes), bool)
    for row in range(rows):
        for home in range(1, homes):
            if rng.random() < AGAIN:
                places[row, home] = places[row, rng.integers(home)]
            is_new[row, home] = places[row, home] not in places[row, :home]
    return places.astype(np.int64), is_new


def _questions(
    ring: ClipRing, asker: StreamAsker, rng: Generator, places: Sequence[int]
) -> list[tuple[list[int], int, str]]:
    """(tokens, first of the answer, answer) for categories that nobody can be unsure of."""
    facts: list[Facts] = [r.facts for place in places if (r := ring.records[place]) is not None]
    totals: NDArray[np.int64] = np.stack([one.counts[-1] for one in facts]).sum(0, dtype=np.int64)
    is_sure = np.stack([one.is_sure for one in facts]).all(0)
    names = categories()
    askable = [n for n in np.flatnonzero((totals > 0) & is_sure) if spoken(names[n]) == names[n]]
    chosen = spread(totals[askable].astype(np.float64), rng, QUESTIONS)
    found = []
    for n in (askable[at] for at in chosen):
        count = int(totals[n])
        found.append((*asker.ask(names[n], count), str(count)))
    return found or [(*asker.ask(names[1], int(totals[1])), str(int(totals[1])))]


def _table(
    asked: list[list[tuple[list[int], int, str]]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], list[list[str]]]:
    """Ids [R, Q, L], first and last answer tokens [R, Q] (0: no question), answers."""
    most = max(len(rows) for rows in asked)
    longest = max(len(ids) for rows in asked for ids, _, _ in rows)
    width = -(-longest // LENGTH_STEP) * LENGTH_STEP
    table: NDArray[np.int64] = np.zeros((len(asked), most, width), np.int64)
    start: NDArray[np.int64] = np.zeros((len(asked), most), np.int64)
    stop: NDArray[np.int64] = np.zeros((len(asked), most), np.int64)
    for row, rows in enumerate(asked):
        for n, (ids, first, _) in enumerate(rows):
            table[row, n, : len(ids)] = ids
            start[row, n], stop[row, n] = first, len(ids)
    return table, start, stop, [[answer for *_, answer in rows] for rows in asked]
