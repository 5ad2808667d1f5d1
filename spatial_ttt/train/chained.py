"""Long streams out of the clips at hand: homes one after another, some of them again, counted over all.

What was counted in a home counts once, however often the home is walked through.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from spatial_ttt.scenes.questions.numbers import spread
from spatial_ttt.scenes.questions.streams import UNSURE_SHARE
from spatial_ttt.scenes.questions.templates import ask_stream_count
from spatial_ttt.scenes.wording import spoken
from spatial_ttt.train.clip_types import KINDS, Chain, ClipSpec, Facts, categories
from spatial_ttt.train.devices import to_device
from spatial_ttt.train.encoder import encode_exchange
from spatial_ttt.train.named import NameFinder
from spatial_ttt.train.ring import Batch, ClipRing

AGAIN = 0.2  # share of homes that were walked through before
QUESTIONS = 24  # of a stream, at most
LENGTH_STEP = 8  # tokens
LONGEST_QUESTION = 32  # tokens of a counting question with its answer


def chained_spec(spec: ClipSpec, made: Chain) -> ClipSpec:
    """The shape of a stream of clips."""
    slots = made.homes * (spec.num_slots // made.stride)
    return dataclasses.replace(spec, num_slots=slots, fps=spec.fps / made.stride)


def stream_rows(clips: int, made: Chain) -> int:
    """Streams that have about as many frames together as a step of so many clips."""
    return max(1, round(clips * made.stride / made.homes))


class Exchange(NamedTuple):
    """A question with its answer."""

    kind: int  # index into KINDS
    ids: list[int]  # of question and answer
    named: list[int]  # of each token of the question the category whose name ends there, else 0
    start: int  # index of the first token of the answer
    answer: str


class StreamAsker:
    """Questions over streams, as token ids; each about a count is encoded once."""

    def __init__(self, encode: Callable[[str], list[int]], prompt: str) -> None:
        """`prompt` has a place for {question}."""
        self.encode, self.prompt = encode, prompt
        self.names = NameFinder(encode, {name: n for n, name in enumerate(categories()) if n})
        self.known: dict[tuple[int, int], Exchange] = {}

    def count(self, category: int, count: int) -> Exchange:
        """How many of a category there are."""
        key = (category, count)
        if key not in self.known:
            words = self.prompt.format(question=ask_stream_count(categories()[category]))
            self.known[key] = self.exchange("vsc", words, str(count))
        return self.known[key]

    def exchange(self, kind: str, words: str, answer: str) -> Exchange:
        """One question, as it is, with its answer."""
        head, tail = encode_exchange(self.encode, words, answer)
        named = self.names.ends(head)
        return Exchange(KINDS.index(kind), head + tail, named, len(head), answer)


def chain(ring: ClipRing, asker: StreamAsker, rng: Generator, rows: int, made: Chain) -> Batch:
    """`rows` streams of clips; of the dense arrays only `counts` is known."""
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
    table = _table(asked)
    none = ring.place[:0]
    return Batch(
        frames=ring.frames[index][:, :, shown].flatten(1, 2),
        ids=to_device(table.ids, ring.device),
        start=table.start,
        stop=table.stop,
        kind=table.kind,
        named=table.named,
        truth=[[one.answer for one in few] for few in asked],
        category=none,
        depth=none,
        pose=none,
        counts=so_far,
        place=_unknown(ring.place, rows),
        first=_unknown(ring.first, rows),
    )


def _unknown(array: Tensor, rows: int) -> Tensor:
    return array.new_full((rows, *array.shape[1:]), torch.nan)


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
) -> list[Exchange]:
    """Counts, spread over the scale, of categories that the benchmark would ask about."""
    facts: list[Facts] = [r.facts for place in places if (r := ring.records[place]) is not None]
    totals: NDArray[np.int64] = np.stack([one.counts[-1] for one in facts]).sum(0, dtype=np.int64)
    glimpsed: NDArray[np.int64] = np.stack([one.glimpsed for one in facts]).sum(0, dtype=np.int64)
    is_sure = glimpsed <= UNSURE_SHARE * totals
    names = categories()
    askable = [n for n in np.flatnonzero((totals > 0) & is_sure) if spoken(names[n]) == names[n]]
    chosen = spread(totals[askable].astype(np.float64), rng, QUESTIONS)
    found = [asker.count(int(askable[at]), int(totals[askable[at]])) for at in chosen]
    return found or [asker.count(1, int(totals[1]))]


class _Table(NamedTuple):
    """Questions of several streams, padded to one length; R streams with up to Q of L tokens."""

    ids: NDArray[np.int64]  # [R, Q, L]
    named: NDArray[np.int64]  # [R, Q, L]
    start: NDArray[np.int64]  # [R, Q] first token of the answer; 0: no question
    stop: NDArray[np.int64]  # [R, Q]
    kind: NDArray[np.int64]  # [R, Q]


def _table(asked: Sequence[Sequence[Exchange]]) -> _Table:
    most = max(len(few) for few in asked)
    longest = max(len(one.ids) for few in asked for one in few)
    width = -(-longest // LENGTH_STEP) * LENGTH_STEP
    shape = len(asked), most
    wide, flat = np.zeros((2, *shape, width), np.int64), np.zeros((3, *shape), np.int64)
    table = _Table(wide[0], wide[1], flat[0], flat[1], flat[2])
    for row, few in enumerate(asked):
        for n, one in enumerate(few):
            table.ids[row, n, : len(one.ids)] = one.ids
            table.named[row, n, : one.start] = one.named
            table.start[row, n], table.stop[row, n] = one.start, len(one.ids)
            table.kind[row, n] = one.kind
    return table
