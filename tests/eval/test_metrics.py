"""The scorer against hand-computed cases and against the definition written out word for word."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_ttt.errors import DataError
from spatial_ttt.eval.metrics import (
    MRA_THRESHOLDS,
    bootstrap_interval,
    mean_relative_accuracy,
    paired_bootstrap,
    score_reply,
)

THETAS = [0.5 + index * 0.45 / 9 for index in range(10)]  # only to choose borders, never to score


def defined_score(reply: str, target: float) -> float:
    """MRA of a reply, spelled out from the definition with plain Python floats."""
    word = reply.split(" ")[0]
    while word.endswith("."):
        word = word[:-1]
    try:
        prediction = float(word.strip())
    except ValueError:
        return 0.0
    hits = 0
    for theta in np.linspace(0.5, 0.95, 10):
        if target == 0:
            hits += prediction == 0
        elif abs(prediction - target) / target <= 1 - float(theta):
            hits += 1
    return hits / 10


def random_pairs(count: int) -> list[tuple[str, str]]:
    """Replies and targets of every awkward sort."""
    rng = random.Random(20260101)
    pairs = []
    for _ in range(count):
        digits = rng.choice((0, 1, 2))
        target = round(rng.choice((rng.uniform(0, 10), rng.uniform(0, 500), 0.0, 5.0)), digits)
        border = target * (1 + rng.choice((-1, 1)) * (1 - rng.choice(THETAS)))
        value = rng.choice((target, border, round(border, 2), rng.uniform(0, 600), -target, 0.0))
        reply = rng.choice(
            (
                f"{value}", f"{value:.1f}", f"{value:.2f}.", f"{value:.1f} meters",
                f"{value:.0f}cm", f"{value:.1f}\n", "two", "", " ", f"[{value:.0f}, 3]",
                f"{value:.0f}, {value:.0f}",
                f"about {value:.0f}", f" {value:.0f}", f"{value:.3e}", "nan", "inf", "-inf", "...",
                f"{value:.0f}..", "1,000", "None", f"+{abs(value):.2f}", f"{value:.1f}. Because",
            )
        )  # fmt: skip
        pairs.append((reply, repr(target)))
    return pairs


def test_scorer_equals_the_definition_on_twenty_thousand_pairs():
    pairs = random_pairs(20_000)
    expected = [defined_score(reply, float(answer)) for reply, answer in pairs]
    actual = [score_reply(reply, answer, "number").official for reply, answer in pairs]
    assert actual == expected
    assert 0.1 < float(np.mean(expected)) < 0.9  # the pairs are neither all hits nor all misses
    assert len({*expected}) == 11  # every possible score occurs


@pytest.mark.parametrize(
    ("reply", "answer", "expected"),
    [
        ("4", "4", 1.0),
        ("5", "4", 0.6),  # error .25: passes .50 .45 .40 .35 .30 .25
        ("2", "4", 0.1),  # error .50: the first threshold only, inclusive
        ("1.99", "4", 0.0),
        ("8", "10", 0.6),  # error .2 > 1 - .8 = .19999999999999996: float64 decides, misses
        ("1.2", "1", 0.7),  # error .19999999999999996 <= .19999999999999996: hits
        ("6", "5", 0.6),  # error .2, as above
        ("3 chairs", "3", 1.0),
        ("3.", "3", 1.0),
        ("3.5.", "3.5", 1.0),
        ("three", "3", 0.0),
        ("3m", "3", 0.0),
        ("[3]", "3", 0.0),
        ("3,", "3", 0.0),
        ("", "3", 0.0),
        (" 3", "3", 0.0),  # the text before the first space is empty
        ("-3", "3", 0.0),
        ("0", "0", 1.0),
        ("0.0", "0", 1.0),
        ("0.1", "0", 0.0),
        ("7", "0", 0.0),
        ("", "0", 0.0),
        ("nan", "3", 0.0),
        ("inf", "3", 0.0),
    ],
)
def test_numbers_by_hand(reply: str, answer: str, expected: float):
    assert score_reply(reply, answer, "number").official == expected


def test_the_border_is_decided_in_float64():
    assert 1 - MRA_THRESHOLDS[6] == 0.19999999999999996
    assert mean_relative_accuracy(0.8, 1.0) == 0.7  # |.8-1|/1 is .19999999999999996
    assert mean_relative_accuracy(8.0, 10.0) == 0.6  # |8-10|/10 is .2, a hair more


def test_arrays_broadcast_and_agree_with_single_values():
    predictions, targets = np.array([1.0, 2.0, 3.0]), np.array([2.0, 0.0])
    table = mean_relative_accuracy(predictions[:, None], targets[None, :])
    assert table.shape == (3, 2)
    assert table[1, 0] == 1.0 and table[1, 1] == 0.0
    assert table[2, 0] == mean_relative_accuracy(3.0, 2.0) == 0.1


@pytest.mark.parametrize("target", [-1.0, math.nan, math.inf])
def test_impossible_targets_are_refused(target: float):
    with pytest.raises(DataError, match="finite target"):
        mean_relative_accuracy(1.0, target)


def test_a_worded_target_is_refused():
    with pytest.raises(DataError, match="must be a number, got 'four'"):
        score_reply("4", "four", "number")


@pytest.mark.parametrize(
    ("reply", "expected", "lenient"),
    [
        ("B", 1.0, 1.0),
        ("b", 1.0, 1.0),
        ("B.", 1.0, 1.0),
        ("B. front-left", 1.0, 1.0),
        ("B.\n", 0.0, 1.0),  # the full stop is not the last character
        ("(B)", 0.0, 1.0),
        ("The answer is B.", 0.0, 1.0),
        ("front-left", 0.0, 1.0),
        ("A", 0.0, 0.0),
        ("AB", 0.0, 0.0),
        ("", 0.0, 0.0),
        (" B", 0.0, 1.0),
    ],
)
def test_choices_by_hand(reply: str, expected: float, lenient: float):
    options = ("A. back-left", "B. front-left", "C. front-right", "D. back-right")
    score = score_reply(reply, "B", "choice", options)
    assert (score.official, score.lenient) == (expected, lenient)


def test_lenient_is_never_below_official():
    for reply, answer in random_pairs(2000):
        score = score_reply(reply, answer, "number")
        assert score.lenient >= score.official


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=40))
def test_bootstrap_interval_holds_the_mean_and_stays_in_range(values: list[float]):
    interval = bootstrap_interval(values, num_resamples=400)
    assert min(values) - 1e-9 <= interval.low <= np.mean(values) + 1e-9
    assert np.mean(values) - 1e-9 <= interval.high <= max(values) + 1e-9


def test_bootstrap_width_is_that_of_theory():
    values = np.random.default_rng(1).integers(0, 2, size=400).astype(float)
    interval = bootstrap_interval(values, num_resamples=4000)
    theory = 2 * 1.96 * values.std() / math.sqrt(400)
    assert interval.high - interval.low == pytest.approx(theory, rel=0.08)
    assert interval == bootstrap_interval(values, num_resamples=4000)  # seeded


def test_clusters_widen_the_interval():
    """Ten questions that always agree are one observation, not ten."""
    per_video = np.random.default_rng(2).integers(0, 2, size=40).astype(float)
    values, videos = np.repeat(per_video, 10), np.repeat(np.arange(40), 10)
    alone, clustered = bootstrap_interval(values), bootstrap_interval(values, videos)
    assert (clustered.high - clustered.low) > 2.5 * (alone.high - alone.low)


def test_empty_values_have_no_interval():
    assert math.isnan(bootstrap_interval([]).low)


def test_paired_bootstrap_sees_a_small_steady_difference():
    rng = np.random.default_rng(3)
    a = rng.uniform(0, 1, 300)
    result = paired_bootstrap(a, np.clip(a + 0.02, 0, 1))
    assert result.interval.low > 0 and result.p_value < 0.01
    assert paired_bootstrap(a, a).p_value == 1.0
    noise = paired_bootstrap(a, rng.permutation(a))
    assert noise.interval.low < 0 < noise.interval.high


def test_unpaired_lists_are_refused():
    with pytest.raises(DataError, match="equally long"):
        paired_bootstrap([1.0], [1.0, 0.0])
