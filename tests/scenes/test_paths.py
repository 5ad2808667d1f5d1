import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_ttt.scenes.dice import Dice
from spatial_ttt.scenes.homes import Home, make_home
from spatial_ttt.scenes.paths import (
    RoomPaths,
    clearance,
    gates_of,
    keeps_clear,
    obstacles,
    tour,
)


@pytest.fixture(scope="module")
def home() -> Home:
    return make_home(11, num_rooms=5)


def test_clearance_by_hand() -> None:
    rects = np.array([[0.0, 0.0, 1.0, 1.0]])
    points = np.array([[2.0, 0.5], [2.0, 2.0], [0.5, 0.5]])
    assert clearance(rects, points) == pytest.approx([1.0, 2.0**0.5, 0.0])


def test_tour_enters_every_room_through_doors(home: Home) -> None:
    ids = tuple(range(5))
    pairs = {frozenset(gate.rooms) for gate in gates_of(home)}
    order = tour(home, Dice(1), 2, ids)
    assert order[0] == 2 and set(order) == set(ids)
    assert all(frozenset(step) in pairs for step in itertools.pairwise(order))
    assert order.count(order[-1]) == 1  # ends when the last room was entered


def test_paths_keep_away_from_solids(home: Home) -> None:
    rects = obstacles(home)
    for space in home.spaces:
        paths = RoomPaths(space)
        a, b = paths.viewpoints(Dice(2), 2)
        line = np.array(paths.path(a, b))
        assert line[0].tolist() == pytest.approx(a) and line[-1].tolist() == pytest.approx(b)
        steps = np.sqrt((np.diff(line, axis=0) ** 2).sum(1))
        assert steps.max(initial=0.0) < 0.15
        assert clearance(rects, line).min() > 0.1


def test_viewpoints_lie_apart() -> None:
    home = make_home(5, functions=("living room",))
    paths = RoomPaths(home.spaces[0])
    a, b = np.array(paths.viewpoints(Dice(3), 2))
    assert np.linalg.norm(a - b) > 1.0


def test_gates_are_walkable(home: Home) -> None:
    for gate in gates_of(home):
        for room_id, point in zip(gate.rooms, gate.points, strict=True):
            space = home.spaces[room_id]
            assert space.free[space.cell(*point)]


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(0, 12), st.integers(1, 90))
def test_keeping_clear_is_the_least_clearance(seed: int, count: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 8, (count, 2))
    rects = np.concatenate([corner, corner + rng.uniform(0.05, 1.5, (count, 2))], axis=1)
    points = rng.uniform(0, 8, 2) + np.cumsum(rng.normal(0, 0.05, (length, 2)), axis=0)
    least = float(clearance(rects, points).min(initial=np.inf))
    for asked in (0.0, 0.1, 1.0, *((least, np.nextafter(least, 9)) if count else ())):
        assert keeps_clear(rects, points, asked) == (least >= asked)
