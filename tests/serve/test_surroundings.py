"""The map: from distances to places, and which of two mirror images it is."""

from __future__ import annotations

import asyncio
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_ttt.scenes.questions.templates import parse
from spatial_ttt.serve.surroundings import align, place, survey

HOME = {
    "sofa": (0.0, 0.0),
    "table": (3.0, 0.5),
    "tv": (1.0, 4.0),
    "bed": (-2.0, 2.0),
    "sink": (4.0, 5.0),
}


def distances_of(points):
    points = np.asarray(points, float)
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.integers(2, 8), st.integers(0, 10_000))
def test_exact_distances_give_the_points_back(count, seed):
    truth = np.random.default_rng(seed).uniform(-5, 5, (count, 2))
    points, misfit = place(distances_of(truth))
    assert misfit < 0.02
    np.testing.assert_allclose(distances_of(points), distances_of(truth), atol=0.08)


def test_unknown_distances_are_left_open():
    truth = np.array(list(HOME.values()))
    distances = distances_of(truth)
    distances[0, 4] = distances[4, 0] = np.nan
    _, misfit = place(distances)
    assert misfit < 0.05
    assert place(np.full((3, 3), np.nan))[0].shape == (3, 2)
    assert place(np.zeros((0, 0)))[0].shape == (0, 2)
    assert place(np.zeros((4, 4)))[1] == pytest.approx(0, abs=1e-6)


def test_aligning_turns_and_moves_but_neither_scales_nor_mirrors():
    truth = np.array(list(HOME.values()))
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = truth @ turn.T + (3, -9)
    np.testing.assert_allclose(align(moved, [0, 2, 3], truth[[0, 2, 3]]), truth, atol=1e-9)
    mirrored = moved * (-1, 1)
    assert np.abs(align(mirrored, [0, 1, 2, 3, 4], truth) - truth).max() > 1


class Oracle:
    """Answers the questions from a home it knows, as a perfect memory would."""

    def __init__(self, home, lies=()):
        self.home, self.lies, self.asked = home, lies, []

    async def __call__(self, question):
        self.asked.append(question)
        asked = parse(question)
        assert asked is not None, question
        if asked.question_type == "object_counting":
            return "1" if asked.names[0] in self.home else "0"
        places = [np.array(self.home[name]) for name in asked.names]
        if asked.question_type == "object_abs_distance":
            return f"{np.linalg.norm(places[0] - places[1]):.2f}"
        a, b = places[1] - places[0], places[2] - places[0]
        left = a[0] * b[1] - a[1] * b[0] > 0
        return "A" if left else "B"


def run(oracle, categories):
    async def collect():
        return [event async for event in survey(oracle, categories)]

    return asyncio.run(collect())


@pytest.mark.parametrize("mirror", [1, -1])
def test_a_perfect_memory_draws_the_true_map(mirror):
    home = {name: (mirror * x, y) for name, (x, y) in HOME.items()}
    events = run(Oracle(home), [*HOME, "piano"])
    drawn = events[-1]
    assert drawn["type"] == "map"
    assert set(drawn["counts"]) == set(HOME)
    names = [p["category"] for p in drawn["places"]]
    points = np.array([[p["x"], p["y"]] for p in drawn["places"]])
    truth = np.array([home[name] for name in names])
    aligned = align(points, list(range(len(names))), truth)
    assert np.abs(aligned - truth).max() < 0.15
    kinds = [event["type"] for event in events]
    assert kinds.count("count") == 6
    assert kinds.count("distance") == len(list(itertools.combinations(HOME, 2)))


def test_nonsense_answers_draw_an_empty_map():
    async def mumble(question):
        return "hm, hm"

    events = run(mumble, ["sofa", "table"])
    assert events[-1]["places"] == []
    assert [event["count"] for event in events[:2]] == [None, None]
