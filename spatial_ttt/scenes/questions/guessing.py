"""What one expects who has read many questions with their answers but never looks.

Such a viewer knows how many chairs a home mostly has, how large a sofa is, that pillows lie near
sofas and that ceiling lights are seen late. `learn` makes these habits of furnished homes into small
tables, `Guesser.expects` says how likely they make the right answer of a question, and `Guesser.guess`
answers by them. The tables of training homes are shipped with the package (`shipped_guesser`).
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from spatial_ttt.scenes.questions.question import LETTERS, Question, option_text

TABLES = Path(__file__).with_name("habits_of_homes.json")
SIZE_STEPS = 24  # per factor of ten: one step is a tenth of the size
PRIOR = 4.0  # offers that a pair's own record must outweigh
ORDER_WEIGHT = 0.5  # strengths are means over all pairs and overstate each one
LEAST_OFFERS = 6  # rarer pairs are left to the option's own record
Tables = dict[str, Any]

GUESSED = (
    "object_counting",
    "object_size_estimation",
    "object_rel_distance",
    "obj_appearance_order",
)
"""Types whose words give an answer away."""


def learn(questions: Iterable[Question]) -> Tables:
    """The habits that a pool of questions shows, as plain JSON values."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    sizes: dict[str, Counter[str]] = defaultdict(Counter)
    offered: Counter[tuple[str, str]] = Counter()
    won: Counter[tuple[str, str]] = Counter()
    first: Counter[str] = Counter()
    later: Counter[str] = Counter()
    for question in questions:
        kind, names = question.question_type, question.facts.get("categories", [""])
        if kind == "object_counting":
            counts[names[0]][question.ground_truth] += 1
        elif kind == "object_size_estimation":
            sizes[names[0]][size_step(question.ground_truth)] += 1
        elif kind == "object_rel_distance":
            for word in map(option_text, question.options or ()):
                is_right = word == question.answer_text
                for pair in (("", word), (names[0], word)):
                    offered[pair] += 1
                    won[pair] += is_right
        elif kind == "obj_appearance_order":
            for a, b in itertools.combinations(names, 2):
                first[a] += 1
                later[b] += 1
    near: dict[str, dict[str, list[int]]] = defaultdict(dict)
    for (reference, word), number in sorted(offered.items()):
        if not reference or number >= LEAST_OFFERS:
            near[reference][word] = [number, won[reference, word]]
    strength = {
        name: round(math.log((first[name] + 1) / (later[name] + 1)), 2)
        for name in sorted(first | later)
    }
    by_name = {name: dict(sorted(table.items())) for name, table in sorted(counts.items())}
    by_size = {name: dict(sorted(table.items())) for name, table in sorted(sizes.items())}
    return {"count": by_name, "size": by_size, "near": dict(near), "order": strength}


def size_step(centimetres: str) -> str:
    """The step of a size on a scale of `SIZE_STEPS` per factor of ten."""
    return str(math.floor(math.log10(max(float(centimetres), 1.0)) * SIZE_STEPS))


class Guesser:
    """Expects answers by tables of `learn`."""

    def __init__(self, tables: Tables) -> None:
        self.count: dict[str, dict[str, int]] = tables["count"]
        self.size: dict[str, dict[str, int]] = tables["size"]
        self.near: dict[str, dict[str, list[int]]] = tables["near"]
        self.order: dict[str, float] = tables["order"]

    def expects(self, question: Question) -> float | None:
        """How likely the right answer seemed before looking, 0..1; None if nothing is known."""
        if question.options is None:
            known, answer = self._numbers(question)
            total = sum(known.values())
            return (known.get(answer, 0) + 0.5) / (total + 1.0) if total else None
        chances = self.chances(question)
        return chances[LETTERS.index(question.ground_truth)] if chances else None

    def guess(self, question: Question) -> str | None:
        """The letter of the option that seems most likely; None for numbers and where nothing is known."""
        chances = self.chances(question)
        return LETTERS[chances.index(max(chances))] if chances else None

    def _numbers(self, question: Question) -> tuple[dict[str, int], str]:
        if question.question_type == "object_counting":
            table, answer = self.count, question.ground_truth
        elif question.question_type == "object_size_estimation":
            table, answer = self.size, size_step(question.ground_truth)
        else:
            return {}, ""
        return table.get(question.facts["categories"][0], {}), answer

    def chances(self, question: Question) -> list[float]:
        """How likely each option seems; empty if nothing is known of this type."""
        words = [option_text(option) for option in question.options or ()]
        if question.question_type == "object_rel_distance":
            weights = [self._nearness(question.facts["categories"][0], word) for word in words]
        elif question.question_type == "obj_appearance_order":
            scores = [self._order(word.split(", ")) for word in words]
            weights = [math.exp(score - max(scores)) for score in scores]
        else:
            return []
        total = sum(weights)
        return [weight / total for weight in weights]

    def _nearness(self, reference: str, word: str) -> float:
        offered, won = self.near.get("", {}).get(word, (0, 0))
        alone = (won + 0.5) / (offered + 2.0)
        offered, won = self.near.get(reference, {}).get(word, (0, 0))
        return (won + PRIOR * alone) / (offered + PRIOR)

    def _order(self, names: list[str]) -> float:
        strengths = [self.order.get(name, 0.0) for name in names]
        return ORDER_WEIGHT * sum(a - b for a, b in itertools.combinations(strengths, 2))


@cache
def shipped_guesser() -> Guesser:
    """By the habits of training homes of one to three rooms; see benchmarks/blind_reader.py."""
    return Guesser(json.loads(TABLES.read_text()))
