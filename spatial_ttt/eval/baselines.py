"""What a model scores that never looks: answering at random, and always giving the same answer.

Four constants are compared for numbers, because tables rarely say which they mean:
    frequency      the answer that occurs in the data and scores best under the metric
    best_constant  the best of all real numbers (2.1 beats 2 on counts: it is within 0.5 of 3's 2.1)
    most_frequent  the commonest answer, good or bad
    median         the median answer
For choices the constant is the commonest option text where every question of the type offers the
same options (left/right), else the commonest letter.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spatial_ttt.eval.benchmarks.item import BenchmarkItem
from spatial_ttt.eval.metrics import (
    MRA_THRESHOLDS,
    FloatArray,
    mean_relative_accuracy,
    target_number,
)
from spatial_ttt.eval.parsing import option_text
from spatial_ttt.eval.question_types import DIRECTION, DIRECTION_SUBTYPES, VSI_BENCH_TYPES

CONSTANTS = ("frequency", "best_constant", "most_frequent", "median")


@dataclass(frozen=True, slots=True)
class BaselineScore:
    """A row's score for one type."""

    score: float
    """Points, 0 to 100."""
    n: int
    answer: str
    """The answer always given; "random" where there is none."""


BaselineRow = dict[str, BaselineScore]


def baseline_rows(items: Sequence[BenchmarkItem]) -> dict[str, BaselineRow]:
    """`random` and each of `CONSTANTS`: type -> score, directions merged, absent types absent."""
    by_type: dict[str, list[BenchmarkItem]] = defaultdict(list)
    for item in items:
        by_type[item.question_type].append(item)
    rules: dict[str, Callable[[Sequence[BenchmarkItem]], BaselineScore]] = {"random": score_random}
    rules |= {name: _constant_rule(name) for name in CONSTANTS}
    return {
        name: merge_directions({key: rule(group) for key, group in by_type.items()})
        for name, rule in rules.items()
    }


def score_random(items: Sequence[BenchmarkItem]) -> BaselineScore:
    """The expected score of a guess: any option, or an answer drawn from the type's own answers."""
    if items[0].kind == "number":
        values, counts = _answer_counts(items)
        share = counts / counts.sum()
        expected = float(share @ mean_relative_accuracy(values[:, None], values[None, :]) @ share)
    else:
        expected = float(np.mean([1 / max(len(item.options), 2) for item in items]))
    return BaselineScore(100 * expected, len(items), "random")


def score_constant_choice(items: Sequence[BenchmarkItem]) -> BaselineScore:
    """Always the commonest option text where all questions offer the same options, else letter."""
    offers = {frozenset(option_text(option) for option in item.options) for item in items}
    has_same_options = len(offers) == 1 and all(item.options for item in items)
    answers = Counter(_right_text(item) if has_same_options else item.answer for item in items)
    answer, count = min(answers.items(), key=lambda pair: (-pair[1], pair[0]))
    return BaselineScore(100 * count / len(items), len(items), answer)


def best_constant(values: FloatArray, counts: FloatArray) -> tuple[float, float]:
    """The real number with the highest summed MRA against `values` [n], each `counts` times.

    Every target y gives 1/10 for each closed interval [y(1-t), y(1+t)] that holds the constant, so
    the sum only changes at interval ends: those and the middles between neighbours are all there is
    to try. Returns (constant, mean score in [0, 1]); the smallest of equally good ones.
    """
    tolerances = 1 - MRA_THRESHOLDS
    low, high = np.outer(values, 1 - tolerances), np.outer(values, 1 + tolerances)
    ends = np.unique(np.concatenate([low.ravel(), high.ravel(), values]))
    middles = (ends[:-1] + ends[1:]) / 2
    return _best_of(np.sort(np.concatenate([ends, middles])), values, counts)


def merge_directions(row: Mapping[str, BaselineScore]) -> BaselineRow:
    """Replace the direction sub-types by their unweighted mean, and order by the usual table."""
    merged = {key: value for key, value in row.items() if key not in DIRECTION_SUBTYPES}
    parts = {key: row[key] for key in DIRECTION_SUBTYPES if key in row}
    if parts:
        merged[DIRECTION] = BaselineScore(
            float(np.mean([part.score for part in parts.values()])),
            sum(part.n for part in parts.values()),
            ", ".join(f"{key.rsplit('_', 1)[1]}: {part.answer}" for key, part in parts.items()),
        )
    order = {name: index for index, name in enumerate(VSI_BENCH_TYPES)}
    return dict(sorted(merged.items(), key=lambda pair: (order.get(pair[0], len(order)), pair[0])))


def _constant_rule(name: str) -> Callable[[Sequence[BenchmarkItem]], BaselineScore]:
    def rule(items: Sequence[BenchmarkItem]) -> BaselineScore:
        if items[0].kind != "number":
            return score_constant_choice(items)
        values, counts = _answer_counts(items)
        constant, score = _pick_constant(name, values, counts)
        return BaselineScore(100 * score, len(items), f"{constant:g}")

    return rule


def _pick_constant(name: str, values: FloatArray, counts: FloatArray) -> tuple[float, float]:
    if name == "best_constant":
        return best_constant(values, counts)
    if name == "frequency":
        return _best_of(values, values, counts)
    if name == "most_frequent":
        constant = values[np.argmax(counts)]
    else:
        constant = np.median(np.repeat(values, counts.astype(int)))
    return _best_of(np.array([constant]), values, counts)


def _best_of(candidates: FloatArray, values: FloatArray, counts: FloatArray) -> tuple[float, float]:
    """The best of the candidate constants [m] and its mean score."""
    scores = np.concatenate(
        [
            mean_relative_accuracy(part[:, None], values[None, :]) @ counts / counts.sum()
            for part in np.array_split(candidates, len(candidates) // 512 + 1)
        ]
    )
    best = int(np.argmax(scores))
    return float(candidates[best]), float(scores[best])


def _answer_counts(items: Sequence[BenchmarkItem]) -> tuple[FloatArray, FloatArray]:
    """Distinct answers in rising order, and how often each occurs."""
    values, counts = np.unique([target_number(item.answer) for item in items], return_counts=True)
    return values, counts.astype(np.float64)


def _right_text(item: BenchmarkItem) -> str:
    return option_text(item.options[ord(item.answer) - ord("A")])


def rows_to_json(rows: Mapping[str, BaselineRow]) -> dict[str, dict[str, dict[str, object]]]:
    """Rows as plain JSON values: row -> type -> {score in points, n, answer}."""
    return {
        name: {
            key: {"score": cell.score, "n": cell.n, "answer": cell.answer}
            for key, cell in row.items()
        }
        for name, row in rows.items()
    }
