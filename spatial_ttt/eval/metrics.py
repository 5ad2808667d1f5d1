"""The scores of a reply and of many: mean relative accuracy, exact choice, bootstrap intervals.

Scores of single replies lie in [0, 1]; tables print them times 100. Everything is float64.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spatial_ttt.errors import DataError
from spatial_ttt.eval import parsing
from spatial_ttt.eval.question_types import AnswerKind

FloatArray = NDArray[np.float64]

MRA_THRESHOLDS: FloatArray = np.linspace(0.5, 0.95, 10)
"""The thresholds theta; 1 - 0.8 is 0.19999999999999996 here, as in the official scorer."""
_TOLERANCES: FloatArray = 1 - MRA_THRESHOLDS


def mean_relative_accuracy(prediction: ArrayLike, target: ArrayLike) -> FloatArray:
    """Mean over thetas of 1(|prediction - target| / target <= 1 - theta); any broadcast shape.

    A NaN prediction scores 0. A target of 0 has no relative error: an exact 0 scores 1, all else 0
    (the limit of the definition, where the authors' code gives full marks to every reply).
    Negative or non-finite targets raise `DataError`: no benchmark asks for such a quantity.
    """
    predicted = np.asarray(prediction, dtype=np.float64)
    wanted = np.asarray(target, dtype=np.float64)
    if not bool(np.all(np.isfinite(wanted) & (wanted >= 0))):
        bad = wanted[~(np.isfinite(wanted) & (wanted >= 0))].flat[0]
        raise DataError(f"relative accuracy needs a finite target of at least 0, got {bad}")
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        error = np.abs(predicted - wanted) / wanted
    error = np.where((predicted == 0) & (wanted == 0), 0.0, error)  # 0/0 is a hit, not NaN
    hits: FloatArray = (error[..., None] <= _TOLERANCES).mean(axis=-1)
    return hits


@dataclass(frozen=True, slots=True)
class ReplyScore:
    """What a reply earned, in [0, 1], and how it was read."""

    official: float
    lenient: float
    parsed: str | None
    """The official reading; None when the reply holds no number or letter."""


def score_reply(
    reply: str, answer: str, kind: AnswerKind, options: tuple[str, ...] = ()
) -> ReplyScore:
    """Score one reply. `answer` is a number in decimal digits or an option's letter."""
    if kind == "number":
        return _score_number(reply, answer)
    if kind == "choice":
        text = parsing.official_text(reply)
        official: str | None = text if re.fullmatch("[A-Za-z]", text) else None
    else:
        official = parsing.mindcube_letter(reply)
    loose = parsing.lenient_letter(reply, options)
    is_exact = official is not None and official.lower() == answer.lower()
    is_meant = is_exact or (loose is not None and loose.lower() == answer.lower())
    return ReplyScore(float(is_exact), float(is_meant), official)


def target_number(answer: str) -> float:
    """The numeric ground truth as a float; raises `DataError` when it is no number at all."""
    try:
        return float(answer)
    except ValueError:
        raise DataError(
            f"the answer of a number question must be a number, got {answer!r}"
        ) from None


def _score_number(reply: str, answer: str) -> ReplyScore:
    target = target_number(answer)
    official, loose = parsing.official_number(reply), parsing.lenient_number(reply)
    scores = [
        0.0 if value is None else float(mean_relative_accuracy(value, target))
        for value in (official, loose)
    ]
    return ReplyScore(scores[0], max(scores), None if official is None else repr(official))


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval; NaN on both sides when nothing could be resampled."""

    low: float
    high: float


def cluster_weights(num_clusters: int, *, num_resamples: int, seed: int) -> FloatArray:
    """How often each cluster is drawn in each resample, [num_resamples, num_clusters]."""
    draws = np.random.default_rng(seed).integers(num_clusters, size=(num_resamples, num_clusters))
    offsets = np.arange(num_resamples)[:, None] * num_clusters
    counts = np.bincount((draws + offsets).ravel(), minlength=num_resamples * num_clusters)
    return counts.reshape(num_resamples, num_clusters).astype(np.float64)


def resampled_means(
    values: FloatArray, clusters: NDArray[np.intp], weights: FloatArray
) -> FloatArray:
    """The mean of `values` in every resample, [num_resamples].

    `clusters` [n] names each value's cluster (its video): questions about one video stand or fall
    together, so videos are resampled, not questions. NaN where a resample drew no value.
    """
    num_clusters = weights.shape[1]
    sums = np.bincount(clusters, weights=values, minlength=num_clusters)
    counts = np.bincount(clusters, minlength=num_clusters).astype(np.float64)
    with np.errstate(invalid="ignore"):
        means: FloatArray = (weights @ sums) / (weights @ counts)
    return means


def interval95(samples: FloatArray) -> Interval:
    """The central 95 % of resampled scores, NaNs left out."""
    valid = samples[~np.isnan(samples)]
    if valid.size == 0:
        return Interval(float("nan"), float("nan"))
    low, high = np.percentile(valid, [2.5, 97.5])
    return Interval(float(low), float(high))


def bootstrap_interval(
    values: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """95 % interval of the mean of `values` [n]; without `clusters` every value is its own."""
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        return Interval(float("nan"), float("nan"))
    labels = np.arange(data.size) if clusters is None else np.asarray(clusters)
    _, index = np.unique(labels, return_inverse=True)
    weights = cluster_weights(int(index.max()) + 1, num_resamples=num_resamples, seed=seed)
    return interval95(resampled_means(data, index, weights))


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Mean of b - a over the same items, its 95 % interval and how often b is not better."""

    difference: float
    interval: Interval
    p_value: float
    """Two-sided: twice the smaller share of resamples on one side of 0, at most 1."""


def paired_bootstrap(
    a: ArrayLike,
    b: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    num_resamples: int = 2000,
    seed: int = 0,
) -> PairedDifference:
    """Compare two score lists of the same items [n], in the same order."""
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.size == 0:
        raise DataError(
            f"a paired comparison needs two equally long, non-empty score lists, "
            f"got {first.size} and {second.size}; score both models on the same items"
        )
    delta = second - first
    labels = np.arange(delta.size) if clusters is None else np.asarray(clusters)
    _, index = np.unique(labels, return_inverse=True)
    weights = cluster_weights(int(index.max()) + 1, num_resamples=num_resamples, seed=seed)
    samples = resampled_means(delta, index, weights)
    return PairedDifference(float(delta.mean()), interval95(samples), two_sided_p(samples))


def two_sided_p(samples: FloatArray) -> float:
    """Bootstrap p-value of "no difference" from resampled differences, NaNs left out."""
    valid = samples[~np.isnan(samples)]
    if valid.size == 0:
        return float("nan")
    one_side = min(float(np.mean(valid <= 0)), float(np.mean(valid >= 0)))
    return min(1.0, 2 * max(one_side, 1 / (valid.size + 1)))  # never claim p = 0
