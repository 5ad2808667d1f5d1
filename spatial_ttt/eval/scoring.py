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

Layout = dict[str, list[str]]
"""Reported type -> the question types it is the unweighted mean of."""


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


class ResampledMeans:
    """Means of values per question type, and the same means over shared resamples of clips."""

    def __init__(
        self, types: Sequence[str], clusters: Sequence[str], *, num_resamples: int, seed: int
    ) -> None:
        self._types = np.array(types)
        _, self._clusters = np.unique(np.array(clusters), return_inverse=True)
        self._weights = cluster_weights(
            int(self._clusters.max()) + 1, num_resamples=num_resamples, seed=seed
        )

    def mean(self, values: FloatArray, layout: Layout) -> float:
        """Mean over reported types of the mean over sub-types of the mean over questions."""
        return float(
            np.mean(
                [
                    np.mean([values[self._types == part].mean() for part in parts])
                    for parts in layout.values()
                ]
            )
        )

    def samples(self, values: FloatArray, layout: Layout) -> FloatArray:
        """The same mean in every resample, [num_resamples]."""
        means: FloatArray = np.mean(
            [
                np.mean([self._of_type(values, part) for part in parts], axis=0)
                for parts in layout.values()
            ],
            axis=0,
        )
        return means

    def micro_samples(self, values: FloatArray) -> FloatArray:
        """The mean over questions in every resample."""
        return resampled_means(values, self._clusters, self._weights)

    def count(self, layout: Layout) -> int:
        """How many questions the types of `layout` have."""
        return int(
            np.isin(self._types, [part for parts in layout.values() for part in parts]).sum()
        )

    def _of_type(self, values: FloatArray, name: str) -> FloatArray:
        mask = self._types == name
        return resampled_means(values[mask], self._clusters[mask], self._weights)


def report_layout(types: Iterable[str]) -> Layout:
    """How question types are reported: direction's sub-types merged, in table order."""
    names = sorted(set(types), key=table_order)
    layout: Layout = {}
    for name in names:
        layout.setdefault(DIRECTION if name in DIRECTION_SUBTYPES else name, []).append(name)
    return dict(sorted(layout.items(), key=lambda pair: table_order(pair[0])))


def summarise(
    predictions: Sequence[Prediction], *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Summary:
    """Score every reply and resample clips for the intervals."""
    if not predictions:
        raise DataError("there are no replies to score")
    check_unique_replies(predictions)
    scores = [prediction.score() for prediction in predictions]
    official: FloatArray = np.array([score.official for score in scores])
    lenient: FloatArray = np.array([score.lenient for score in scores])
    layout = report_layout(prediction.question_type for prediction in predictions)
    means = ResampledMeans(
        [prediction.question_type for prediction in predictions],
        [prediction.cluster for prediction in predictions],
        num_resamples=num_resamples,
        seed=seed,
    )

    def line(chosen: Layout) -> TypeScore:
        parts = chosen.get(DIRECTION, []) if list(chosen) == [DIRECTION] else []
        absent = tuple(name for name in DIRECTION_SUBTYPES if parts and name not in parts)
        return TypeScore(
            100 * means.mean(official, chosen),
            interval95(100 * means.samples(official, chosen)),
            100 * means.mean(lenient, chosen),
            means.count(chosen),
            absent,
        )

    missing = _missing(layout)
    return Summary(
        types={name: line({name: parts}) for name, parts in layout.items()},
        subtypes={part: line({part: [part]}) for part in layout.get(DIRECTION, [])},
        micro=TypeScore(
            100 * float(official.mean()),
            interval95(100 * means.micro_samples(official)),
            100 * float(lenient.mean()),
            len(predictions),
        ),
        macro=line(layout),
        overall=line({name: layout[name] for name in VSI_BENCH_TYPES})
        if missing == () and DIRECTION in layout
        else None,
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


_TABLE_ORDER = (
    *NUMBER_TYPES,
    "object_rel_distance",
    DIRECTION,
    *DIRECTION_SUBTYPES,
    "route_planning",
    "obj_appearance_order",
)


def table_order(name: str) -> tuple[int, str]:
    """Sort key: VSI-Bench's types in their usual order, then the others by name."""
    return (_TABLE_ORDER.index(name) if name in _TABLE_ORDER else len(_TABLE_ORDER), name)


def _missing(layout: Layout) -> tuple[str, ...]:
    """The VSI-Bench types that are not there; nothing when none is, for then it is no VSI-Bench."""
    there = {part for parts in layout.values() for part in parts}
    wanted = (*NUMBER_TYPES, *CHOICE_TYPES)
    return tuple(name for name in wanted if name not in there) if there & {*wanted} else ()


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
