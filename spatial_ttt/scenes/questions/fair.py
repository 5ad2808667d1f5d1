"""Questions that reading alone does not answer, for clips made one at a time.

More questions are made than wanted, and each is kept the more likely the less it was to be expected:
a question kept with a chance of 1 / (how likely its answer seemed) has all answers alike, given its
words. `balance` does more for a whole pool; it can follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from numpy.random import Generator

from spatial_ttt.scenes.questions.generate import generate
from spatial_ttt.scenes.questions.guessing import Guesser, shipped_guesser
from spatial_ttt.scenes.questions.question import QUESTION_TYPES, Question
from spatial_ttt.scenes.questions.seen import Observation

EVEN = {
    "object_counting": 0.1,
    "object_size_estimation": 0.05,
    "object_rel_distance": 0.15,
    "obj_appearance_order": 0.2,
}
"""Answers expected with at most this chance are always kept, others as rarely as they are more expected."""
CANDIDATES = {
    "object_counting": 4,
    "object_size_estimation": 8,
    "object_rel_distance": 2,
    "obj_appearance_order": 2,
}
"""Questions made for each one wanted."""


def generate_fair(
    seen: Observation,
    rng: Generator,
    limits: int | Mapping[str, int] = 2,
    guesser: Guesser | None = None,
) -> list[Question]:
    """Like `generate`, with fewer questions whose answers the words give away."""
    wanted = dict.fromkeys(QUESTION_TYPES, limits) if isinstance(limits, int) else dict(limits)
    more = {kind: limit * CANDIDATES.get(kind, 1) for kind, limit in wanted.items()}
    kept = keep_unexpected(generate(seen, rng, more), rng, guesser or shipped_guesser())
    left = dict(wanted)
    chosen = []
    for question in kept:
        if left[question.question_type] > 0:
            left[question.question_type] -= 1
            chosen.append(question)
    return chosen


def keep_unexpected(
    questions: Sequence[Question], rng: Generator, guesser: Guesser
) -> list[Question]:
    """Each question with a chance that falls with how likely its answer seemed."""
    luck = rng.random(len(questions)).tolist()
    kept = []
    for question, lot in zip(questions, luck, strict=True):
        even = EVEN.get(question.question_type)
        expected = guesser.expects(question) if even is not None else None
        if even is None or expected is None or lot * expected < even:
            kept.append(question)
    return kept
