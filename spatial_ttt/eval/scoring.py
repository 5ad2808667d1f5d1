"""Scores of a whole run: per type, merged as the benchmark's tables do, with intervals and counts.

A benchmark's unweighted mean is only given when every type and sub-type is there; what is missing is
named instead of being counted as 0.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from spatial_ttt.errors import DataError
from spatial_ttt.eval.metrics import (
    FloatArray,
    Interval,
    cluster_weights,
    interval95,
    resampled_means,
)
from spatial_ttt.eval.predictions import Prediction
from spatial_ttt.eval.question_types import (
    CHOICE_TYPES,
    DIRECTION,
    DIRECTION_SUBTYPES,
    NUMBER_TYPES,
    VSI_BENCH_TYPES,
)

NUM_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class TypeScore:
    """One line of a table. Scores in points, 0 to 100."""

    score: float
    interval: Interval
    lenient: float
    n: int
    missing: tuple[str, ...] = ()
    """Sub-types without a single question; the score is then the mean of the others."""


@dataclass(frozen=True, slots=True)
class Summary:
    """All scores of one run."""

    types: dict[str, TypeScore]
    """Reported types in table order; direction merged."""
    subtypes: dict[str, TypeScore]
    """The sub-types that were merged."""
    micro: TypeScore
    """Mean over questions."""
    macro: TypeScore
    """Unweighted mean over the reported types that are there."""
    overall: TypeScore | None
    """VSI-Bench's overall: the unweighted mean of its eight types; None unless all are there."""
    missing: tuple[str, ...]
    """What `overall` lacks; empty for benchmarks without VSI-Bench types."""
    num_empty: int
    """Replies without any text."""
    num_unreadable: int
    """Replies that the official reading finds no number or letter in."""


def summarise(
    predictions: Sequence[Prediction], *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Summary:
    """Score every reply and resample clips for the intervals."""
    if not predictions:
        raise DataError("there are no replies to score")
    table = _Table(predictions, num_resamples, seed)
    names = {prediction.question_type for prediction in predictions}
    plain = {name: table.of_types([name]) for name in sorted(names, key=_table_order)}
    merged = {name: line for name, line in plain.items() if name not in DIRECTION_SUBTYPES}
    parts = [name for name in DIRECTION_SUBTYPES if name in names]
    if parts:
        absent = tuple(name for name in DIRECTION_SUBTYPES if name not in names)
        merged[DIRECTION] = table.mean_of([[part] for part in parts], missing=absent)
    merged = dict(sorted(merged.items(), key=lambda pair: _table_order(pair[0])))
    groups = {
        name: [[part] for part in parts] if name == DIRECTION else [[name]] for name in merged
    }
    has_vsi = bool(names & {*NUMBER_TYPES, *CHOICE_TYPES})
    missing = _missing(names) if has_vsi else ()
    eight = [groups[name] for name in VSI_BENCH_TYPES if name in groups]
    scores = [prediction.score() for prediction in predictions]
    return Summary(
        types=merged,
        subtypes={name: plain[name] for name in parts},
        micro=table.of_types(sorted(names)),
        macro=table.mean_of_means(list(groups.values())),
        overall=table.mean_of_means(eight) if has_vsi and not missing else None,
        missing=missing,
        num_empty=sum(not prediction.reply.strip() for prediction in predictions),
        num_unreadable=sum(score.parsed is None for score in scores),
    )


def check_unique_replies(predictions: Iterable[Prediction]) -> None:
    """Raise `DataError` when an item was answered twice: it is unclear which reply counts."""
    counts = Counter(prediction.item_id for prediction in predictions)
    item_id, count = max(counts.items(), key=lambda pair: pair[1], default=("", 0))
    if count > 1:
        raise DataError(f"the item {item_id!r} has {count} replies; keep one of them")


class _Table:
    """Scores of all replies, and one shared set of resampled clips for every line."""

    def __init__(self, predictions: Sequence[Prediction], num_resamples: int, seed: int) -> None:
        scores = [prediction.score() for prediction in predictions]
        self._official: FloatArray = np.array([score.official for score in scores])
        self._lenient: FloatArray = np.array([score.lenient for score in scores])
        self._types = np.array([prediction.question_type for prediction in predictions])
        _, self._clusters = np.unique(
            [prediction.cluster for prediction in predictions], return_inverse=True
        )
        self._weights = cluster_weights(
            int(self._clusters.max()) + 1, num_resamples=num_resamples, seed=seed
        )

    def of_types(self, names: Sequence[str]) -> TypeScore:
        """The mean over all questions of these types."""
        return self.mean_of([names])

    def mean_of(self, groups: Sequence[Sequence[str]], missing: tuple[str, ...] = ()) -> TypeScore:
        """The unweighted mean of the groups' means."""
        return self.mean_of_means([groups], missing)

    def mean_of_means(
        self, nested: Sequence[Sequence[Sequence[str]]], missing: tuple[str, ...] = ()
    ) -> TypeScore:
        """Mean over types of the mean over sub-types of the mean over questions."""

        def fold(values: FloatArray) -> float:
            return float(
                np.mean(
                    [np.mean([values[self._mask(g)].mean() for g in inner]) for inner in nested]
                )
            )

        samples = np.mean(
            [np.mean([self._samples(g) for g in inner], axis=0) for inner in nested], axis=0
        )
        interval = interval95(100 * samples)
        names = [name for inner in nested for group in inner for name in group]
        return TypeScore(
            100 * fold(self._official),
            interval,
            100 * fold(self._lenient),
            int(self._mask(names).sum()),
            missing,
        )

    def _mask(self, names: Sequence[str]) -> np.typing.NDArray[np.bool_]:
        return np.isin(self._types, list(names))

    def _samples(self, names: Sequence[str]) -> FloatArray:
        mask = self._mask(names)
        return resampled_means(self._official[mask], self._clusters[mask], self._weights)


def _missing(names: set[str]) -> tuple[str, ...]:
    return tuple(name for name in (*NUMBER_TYPES, *CHOICE_TYPES) if name not in names)


_TABLE_ORDER = (
    *NUMBER_TYPES,
    "object_rel_distance",
    DIRECTION,
    *DIRECTION_SUBTYPES,
    "route_planning",
    "obj_appearance_order",
)


def _table_order(name: str) -> tuple[int, str]:
    return (_TABLE_ORDER.index(name) if name in _TABLE_ORDER else len(_TABLE_ORDER), name)


def type_json(line: TypeScore | None) -> dict[str, object] | None:
    """A line as plain JSON values; an interval of NaN becomes null."""
    if line is None:
        return None
    low, high = line.interval.low, line.interval.high
    return {
        "score": line.score,
        "interval95": None if math.isnan(low) else [low, high],
        "lenient": line.lenient,
        "n": line.n,
        **({"missing": list(line.missing)} if line.missing else {}),
    }


def summary_json(summary: Summary) -> dict[str, object]:
    """A summary as plain JSON values."""
    return {
        "types": {name: type_json(line) for name, line in summary.types.items()},
        "subtypes": {name: type_json(line) for name, line in summary.subtypes.items()},
        "micro": type_json(summary.micro),
        "macro": type_json(summary.macro),
        "overall": type_json(summary.overall),
        "missing": list(summary.missing),
        "num_empty_replies": summary.num_empty,
        "num_unreadable_replies": summary.num_unreadable,
    }
