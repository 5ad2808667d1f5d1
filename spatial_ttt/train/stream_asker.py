"""What is asked of a stream of clips, as token ids: counts over all of it, and the order of what was seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from spatial_ttt.scenes.questions.numbers import spread
from spatial_ttt.scenes.questions.streams import UNSURE_SHARE
from spatial_ttt.scenes.questions.templates import ask_stream_count
from spatial_ttt.scenes.wording import spoken
from spatial_ttt.train import recall
from spatial_ttt.train.clip_types import KINDS, categories
from spatial_ttt.train.encoder import encode_exchange
from spatial_ttt.train.named import NameFinder

COUNTS = 16  # counting questions of a stream, at most
LENGTH_STEP = 8  # tokens


class Exchange(NamedTuple):
    """A question with its answer."""

    kind: int  # index into KINDS
    ids: list[int]  # of question and answer
    named: list[int]  # of each token of the question the category whose name ends there, else 0
    start: int  # index of the first token of the answer
    answer: str


class StreamAsker:
    """Writes the questions; each about a count is encoded once."""

    def __init__(self, encode: Callable[[str], list[int]], number: str, choice: str) -> None:
        """`number` has a place for {question}, `choice` one for {options} too."""
        self.encode, self.number, self.choice = encode, number, choice
        self.names = NameFinder(encode, {name: n for n, name in enumerate(categories()) if n})
        self.known: dict[tuple[int, int], Exchange] = {}

    def exchange(self, kind: str, words: str, answer: str) -> Exchange:
        """One question, as it is, with its answer."""
        head, tail = encode_exchange(self.encode, words, answer)
        return Exchange(KINDS.index(kind), head + tail, self.names.ends(head), len(head), answer)

    def count(self, category: int, count: int) -> Exchange:
        """How many of a category there are."""
        key = (category, count)
        if key not in self.known:
            words = self.number.format(question=ask_stream_count(categories()[category]))
            self.known[key] = self.exchange("vsc", words, str(count))
        return self.known[key]

    def counts(
        self, counted: NDArray[np.int32], glimpsed: NDArray[np.int32], rng: Generator
    ) -> list[Exchange]:
        """Counts, spread over the scale, of categories that the benchmark would ask about.

        Of each category [K] the instances that the stream shows clearly, and those only glimpsed.
        """
        is_sure = (counted > 0) & (glimpsed <= UNSURE_SHARE * counted)
        names = categories()
        askable = [n for n in np.flatnonzero(is_sure).tolist() if spoken(names[n]) == names[n]]
        chosen = spread(counted[askable].astype(np.float64), rng, COUNTS)
        found = [self.count(askable[at], int(counted[askable[at]])) for at in chosen]
        return found or [self.count(1, int(counted[1]))]

    def order(self, item: int, places: Sequence[int], rng: Generator) -> list[Exchange]:
        """In what order a thing appeared by these places (categories): in small steps, in words, by letters."""
        names = categories()
        thing, landmarks = names[item], [names[n] for n in places]
        asked = [
            self.exchange("dense_recall", *row) for row in recall.small_steps(thing, landmarks, rng)
        ]
        for question in recall.orders(thing, landmarks, rng):
            words = self.choice.format(
                question=question.question, options="\n".join(question.options or ())
            )
            asked.append(self.exchange("vsr", words, question.ground_truth))
        if len(landmarks) > 1:
            words, answer = recall.order_in_words(thing, landmarks)
            asked.append(self.exchange("dense_recall", self.number.format(question=words), answer))
        return asked


class Table(NamedTuple):
    """Questions of R streams, up to Q each, padded to L tokens."""

    ids: NDArray[np.int64]  # [R, Q, L]
    named: NDArray[np.int64]  # [R, Q, L]
    start: NDArray[np.int64]  # [R, Q] first token of the answer; 0: no question
    stop: NDArray[np.int64]  # [R, Q]
    kind: NDArray[np.int64]  # [R, Q]


def tabulate(asked: Sequence[Sequence[Exchange]]) -> Table:
    """The questions of each stream side by side."""
    most = max(len(few) for few in asked)
    longest = max(len(one.ids) for few in asked for one in few)
    width = -(-longest // LENGTH_STEP) * LENGTH_STEP
    shape = len(asked), most
    wide, flat = np.zeros((2, *shape, width), np.int64), np.zeros((3, *shape), np.int64)
    table = Table(wide[0], wide[1], flat[0], flat[1], flat[2])
    for row, few in enumerate(asked):
        for n, one in enumerate(few):
            table.ids[row, n, : len(one.ids)] = one.ids
            table.named[row, n, : one.start] = one.named
            table.start[row, n], table.stop[row, n] = one.start, len(one.ids)
            table.kind[row, n] = one.kind
    return table
