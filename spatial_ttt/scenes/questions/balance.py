"""Take from a pool of questions what leaves a viewer who does not look with nothing to gain.

The blind viewer answers each type with whatever paid best over the pool: a constant number, the
letter or the words most often right, or the option whose words are most often right when offered.
`balance` drops, again and again, a question that pays the best blind answer, until none pays more
than its goal; then it deals the letters evenly. Same pool and seed, same questions.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from spatial_ttt.scenes.questions import templates
from spatial_ttt.scenes.questions.question import (
    LETTERS,
    Question,
    lettered,
    option_text,
)
from spatial_ttt.scenes.scene import Array

MRA_GOAL = 0.38
"""Mean relative accuracy, 0..1, that a constant number may reach on a balanced pool."""
CHANCE_MARGIN = 0.02
"""How far above chance, 0..1, a blind choice may be on a balanced pool."""
_THRESHOLDS = 1.0 - np.linspace(0.5, 0.95, 10)
_MAX_GUESSES = 256  # constants tried per type
MIN_GROUP = 20
"""Smaller groups keep all their questions: their frequencies are noise."""
_UNIQUE_WORDS = frozenset({"obj_appearance_order", "vsr"})
"""Types whose options hardly ever recur: only their letters can be learnt."""


def relative_accuracy(guess: Array, truth: Array) -> Array:
    """Mean relative accuracy 0..1 of every guess [C] for every true number [N], [C, N]."""
    wrong = np.abs(guess[:, None] - truth[None]) / np.maximum(truth[None], 1e-9)
    result: Array = (wrong[..., None] <= _THRESHOLDS).mean(-1)
    return result


def group_by_type(questions: Iterable[Question]) -> dict[str, list[Question]]:
    """Questions by type and, as chance depends on it, number of options."""
    groups: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        size = f"/{len(question.options)}" if question.options else ""
        groups[question.question_type + size].append(question)
    return dict(groups)


def _number_kind(number: float) -> str:
    """Small whole numbers are kinds of answer of their own, others go by tenths of a decade."""
    if number < 16 and number == int(number):
        return str(int(number))
    return f"e{np.floor(np.log10(max(number, 1e-3)) * 10):.0f}"


# --- How well blind answers do -------------------------------------------------------------------


def blind_scores(questions: Sequence[Question]) -> dict[str, tuple[float, float]]:
    """For each group of `group_by_type`: the best blind score and chance, both 0..1.

    Chance is 1 / options; a number has none, 0.
    """
    scores = {}
    for kind, group in group_by_type(questions).items():
        if group[0].options is None:
            scores[kind] = (_best_constant(group)[0], 0.0)
        else:
            best = _best_letter(group)
            if group[0].question_type not in _UNIQUE_WORDS:
                best = max(best, _best_words(group)[0])
            scores[kind] = (best, 1.0 / len(group[0].options))
    return scores


def _numbers(group: Sequence[Question]) -> Array:
    return np.array([float(question.ground_truth) for question in group])


def _guesses(truth: Array) -> Array:
    unique = np.unique(truth)
    if len(unique) <= _MAX_GUESSES:
        return unique
    return np.quantile(truth, np.linspace(0, 1, _MAX_GUESSES))


def _best_constant(group: Sequence[Question]) -> tuple[float, float]:
    truth = _numbers(group)
    guesses = _guesses(truth)
    means = relative_accuracy(guesses, truth).mean(1)
    return float(means.max()), float(guesses[means.argmax()])


def _best_letter(group: Sequence[Question]) -> float:
    counts = Counter(question.ground_truth for question in group)
    return max(counts.values()) / len(group)


def _win_rates(group: Sequence[Question]) -> dict[str, float]:
    """How often each option's words are right when they are offered."""
    offered: Counter[str] = Counter()
    won: Counter[str] = Counter()
    for question in group:
        offered.update(option_text(option) for option in question.options or ())
        won[question.answer_text] += 1
    return {words: won[words] / count for words, count in offered.items()}


def _best_words(group: Sequence[Question]) -> tuple[float, list[bool]]:
    """Score of always choosing the words that win most often, and whom it pays."""
    rates = _win_rates(group)
    paid = []
    for question in group:
        words = [option_text(option) for option in question.options or ()]
        top = max(rates[word] for word in words)
        best = [word for word in words if rates[word] == top]
        paid.append(best[0] == question.answer_text if len(best) == 1 else False)
    return sum(paid) / len(group), paid


# --- Balancing -----------------------------------------------------------------------------------


def balance(
    questions: Sequence[Question], rng: Generator, min_share: float = 0.05
) -> list[Question]:
    """A subset, in the pool's order, on which blind answers score near chance.

    No group shrinks below `min_share` of itself, and small ones stay whole: check `blind_scores` of
    what comes back.
    """
    kept: dict[int, Question] = {}
    position = {id(question): n for n, question in enumerate(questions)}
    for group in group_by_type(questions).values():
        order = [group[n] for n in rng.permutation(len(group))]
        floor = max(1, int(min_share * len(group))) if len(group) >= MIN_GROUP else len(group)
        if order[0].options is None:
            chosen = _balance_numbers(order, floor)
            dealt = chosen
        else:
            recurs = order[0].question_type not in _UNIQUE_WORDS
            chosen = _balance_words(order, floor) if recurs else order
            dealt = deal_letters(chosen)
        kept |= {position[id(old)]: new for old, new in zip(chosen, dealt, strict=True)}
    return [kept[n] for n in sorted(kept)]


def _balance_numbers(group: list[Question], floor: int) -> list[Question]:
    """Drop what pays the best constant, common answers before rare ones, until it pays the goal."""
    truth = _numbers(group)
    pay = relative_accuracy(_guesses(truth), truth)  # [C, N]
    total = pay.sum(1)
    _, bins = np.unique([_number_kind(value) for value in truth], return_inverse=True)
    common = np.bincount(bins)  # alive questions by answer
    alive = np.ones(len(group), dtype=bool)
    left = len(group)
    while left > floor and total.max() > MRA_GOAL * left:
        excess = pay[int(total.argmax())] - MRA_GOAL  # what each question adds beyond the goal
        weight = np.where(alive & (excess > 0), excess * common[bins], -1.0)
        drop = int(weight.argmax())
        alive[drop] = False
        common[bins[drop]] -= 1
        total -= pay[:, drop]
        left -= 1
    return [question for question, stays in zip(group, alive, strict=True) if stays]


def _balance_words(group: list[Question], floor: int) -> list[Question]:
    """Drop questions that the most winning words pay, until they pay chance and a margin."""
    goal = 1.0 / len(group[0].options or "-") + CHANCE_MARGIN
    kept = group
    while len(kept) > floor:
        score, paid = _best_words(kept)
        if score <= goal:
            break
        # Part by part: dropping all of the excess at once would turn the best words into the worst.
        excess = max(1, int((score - goal) * len(kept) / 4))
        rates = _win_rates(kept)
        paying = [n for n, is_paid in enumerate(paid) if is_paid]
        paying.sort(key=lambda n: -rates[kept[n].answer_text])
        drop = set(paying[: min(excess, len(kept) - floor)])
        kept = [question for n, question in enumerate(kept) if n not in drop]
    return kept


def deal_letters(group: Sequence[Question]) -> list[Question]:
    """The same questions with every letter right equally often (as near as the number allows)."""
    return [
        with_letter(question, LETTERS[n % len(question.options or "-")])
        for n, question in enumerate(group)
    ]


def with_letter(question: Question, letter: str) -> Question:
    """The question with its right option moved to `letter`, in exchange with what stood there."""
    texts = [option_text(option) for option in question.options or ()]
    here, there = LETTERS.index(question.ground_truth), LETTERS.index(letter)
    texts[here], texts[there] = texts[there], texts[here]
    words = question.question
    if question.question_type == "object_rel_distance":  # its words list the options
        reference = question.facts["categories"][0]
        multiple = words.endswith(templates.MULTIPLE_NOTE)
        words = templates.ask_nearest(tuple(texts), reference, multiple)
    return replace(question, question=words, options=lettered(texts), ground_truth=letter)
