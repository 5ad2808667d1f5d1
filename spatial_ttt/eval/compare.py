"""Two runs over the same items: paired differences, resampled by clip, and which replies differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spatial_ttt.errors import DataError
from spatial_ttt.eval.metrics import FloatArray, PairedDifference, interval95, two_sided_p
from spatial_ttt.eval.predictions import Prediction
from spatial_ttt.eval.scoring import NUM_RESAMPLES, ResampledMeans, report_layout
from spatial_ttt.eval.tables import text_table


@dataclass(frozen=True, slots=True)
class Line:
    """One type in both runs, in points."""

    a: float
    b: float
    n: int
    paired: PairedDifference
    """Of b - a, in points."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """B against A."""

    lines: dict[str, Line]
    """Reported types, then "macro" and "micro"."""
    num_items: int
    num_equal_replies: int
    different: tuple[str, ...]
    """Items whose replies differ, in order."""


def compare(
    a: Sequence[Prediction],
    b: Sequence[Prediction],
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Pair the replies by item; both must be about the same items and answers."""
    first, second = _paired(a, b)
    official_a: FloatArray = np.array([one.score().official for one in first])
    official_b: FloatArray = np.array([one.score().official for one in second])
    layout = report_layout(one.question_type for one in first)
    means = ResampledMeans(
        [one.question_type for one in first],
        [one.cluster for one in first],
        num_resamples=num_resamples,
        seed=seed,
    )
    delta = official_b - official_a
    chosen = {name: {name: parts} for name, parts in layout.items()} | {"macro": layout}
    lines = {
        name: Line(
            100 * means.mean(official_a, group),
            100 * means.mean(official_b, group),
            means.count(group),
            _paired_difference(means.mean(delta, group), means.samples(delta, group)),
        )
        for name, group in chosen.items()
    }
    lines["micro"] = Line(
        100 * float(official_a.mean()),
        100 * float(official_b.mean()),
        len(first),
        _paired_difference(float(delta.mean()), means.micro_samples(delta)),
    )
    different = tuple(x.item_id for x, y in zip(first, second, strict=True) if x.reply != y.reply)
    return Comparison(lines, len(first), len(first) - len(different), different)


def restrict(predictions: Sequence[Prediction], to: Sequence[Prediction]) -> list[Prediction]:
    """The predictions whose items `to` has too: a control may take only some of a run's items."""
    kept = {one.item_id for one in to}
    return [one for one in predictions if one.item_id in kept]


def comparison_json(result: Comparison) -> dict[str, object]:
    """A comparison as plain JSON values."""
    return {
        "lines": {
            name: {
                "a": line.a,
                "b": line.b,
                "n": line.n,
                "difference": line.paired.difference,
                "interval95": [line.paired.interval.low, line.paired.interval.high],
                "p_value": line.paired.p_value,
            }
            for name, line in result.lines.items()
        },
        "num_items": result.num_items,
        "num_equal_replies": result.num_equal_replies,
        "different": list(result.different),
    }


def comparison_table(result: Comparison) -> str:
    """The comparison for the terminal."""
    rows = [
        [
            name,
            str(line.n),
            f"{line.a:.1f}",
            f"{line.b:.1f}",
            f"{line.paired.difference:+.1f}",
            f"[{line.paired.interval.low:+.1f}, {line.paired.interval.high:+.1f}]",
            f"{line.paired.p_value:.3f}",
        ]
        for name, line in result.lines.items()
    ]
    table = text_table(["type", "n", "A", "B", "B - A", "95 %", "p"], rows)
    return (
        f"{table}\n\n{result.num_equal_replies} of {result.num_items} replies are equal, "
        f"word for word"
    )


def _paired(
    a: Sequence[Prediction], b: Sequence[Prediction]
) -> tuple[list[Prediction], list[Prediction]]:
    by_id = {one.item_id: one for one in b}
    ids = {one.item_id for one in a}
    if len(ids) != len(a) or len(by_id) != len(b):
        raise DataError("a run answers an item twice; score it first and keep one reply")
    if ids != by_id.keys() or not ids:
        raise DataError(
            f"the runs are about different items: {len(ids - by_id.keys())} only in A, "
            f"{len(by_id.keys() - ids)} only in B, {len(ids & by_id.keys())} in both; "
            "compare runs of one benchmark and selection"
        )
    second = [by_id[one.item_id] for one in a]
    for x, y in zip(a, second, strict=True):
        if (x.answer, x.question_type) != (y.answer, y.question_type):
            raise DataError(
                f"the item {x.item_id!r} has the answer {x.answer!r} in A and {y.answer!r} in B: "
                "the runs used different versions of the dataset"
            )
    return list(a), second


def _paired_difference(mean: float, samples: FloatArray) -> PairedDifference:
    return PairedDifference(100 * mean, interval95(100 * samples), two_sided_p(samples))
