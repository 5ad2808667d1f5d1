"""Free ways on a floor plan, against points sampled along them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_ttt.scenes.boxes import Boxes, stack, yaw_axes
from spatial_ttt.scenes.questions import plan as P
from spatial_ttt.scenes.scene import Opening, OrientedBox, Room, Scene


def boxes(seed: int, count: int) -> Boxes:
    rng = np.random.default_rng(seed)
    axes = np.array([yaw_axes(yaw) for yaw in rng.uniform(0, 6, count)])
    center = np.concatenate([rng.uniform(0, 6, (count, 2)), np.full((count, 1), 0.4)], axis=1)
    return Boxes(center, rng.uniform(0.1, 1.0, (count, 3)), axes)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.integers(0, 1000))
def test_a_way_is_free_if_no_point_on_it_lies_in_a_grown_box(seed: int) -> None:
    obstacles = boxes(seed, 5)
    plan = P.floor_plan(Scene("s", "test", ()), obstacles, 0.0)
    rng = np.random.default_rng(seed + 1)
    starts, ends = rng.uniform(0, 6, (2, 30, 2))
    free = P.free_ways(plan, starts, ends)
    shares = np.linspace(0, 1, 400)[:, None]
    for n in range(30):
        points = starts[n] + shares * (ends[n] - starts[n])
        depth = np.inf
        for k in range(5):
            local = np.abs((points - obstacles.center[k, :2]) @ obstacles.axes[k, :2, :2].T)
            beyond = (local - obstacles.size[k, :2] / 2 - P.CLEARANCE).max(1)
            depth = min(depth, float(beyond.min()))
        if abs(depth) > 0.01:  # the samples cannot tell a way that barely touches
            assert free[n] == (depth > 0)


def test_the_entry_point_lies_on_the_edge() -> None:
    shape = (np.array([[5.0, 0.0]]), np.array([[1.0, 2.0]]), np.eye(2)[None])
    enter = P.entry(shape, np.zeros(2), np.array([10.0, 0.0]))
    assert enter[0] == pytest.approx(0.4)
    assert P.entry(shape, np.zeros(2), np.array([0.0, 10.0]))[0] == np.inf
    assert P.entry(shape, np.array([5.0, 0.5]), np.array([10.0, 0.0]))[0] == 0.0
    assert P.entry(shape, np.zeros(2), np.array([-10.0, 0.0]))[0] == np.inf, "it lies behind"


@pytest.mark.parametrize(
    ("bottom", "top", "blocks"),
    [(0.0, 0.05, False), (0.0, 0.5, True), (1.4, 2.0, True), (1.6, 2.0, False)],
)
def test_rugs_and_ceiling_lights_do_not_block(bottom: float, top: float, blocks: bool) -> None:
    box = OrientedBox(
        np.array([3.0, 0, (bottom + top) / 2]), np.array([1.0, 1, top - bottom]), np.eye(3)
    )
    plan = P.floor_plan(Scene("s", "test", ()), stack([box]), 0.0)
    free = P.free_ways(plan, np.array([[0.0, 0.0]]), np.array([[6.0, 0.0]]))
    assert free[0] != blocks


def two_rooms() -> Scene:
    def room(room_id: int, left: float) -> Room:
        corners = [[left, 0.0], [left + 4, 0.0], [left + 4, 4.0], [left, 4.0]]
        return Room(room_id, "room", np.array(corners), 2.5)

    door = Opening("door", (1, 2), np.array([4.1, 1.0]), np.array([4.1, 2.0]), 0.0, 2.0)
    window = Opening("window", (1,), np.array([0.0, 1.0]), np.array([0.0, 2.0]), 0.0, 2.0)
    return Scene("s", "test", (), (room(1, 0.0), room(2, 4.2)), (door, window))


@pytest.mark.parametrize(
    ("start", "end", "free"),
    [
        ((1, 1.5), (7, 1.5), True),  # through the middle of the door
        ((1, 3.0), (7, 3.0), False),  # through the wall
        ((1, 1.1), (7, 1.1), False),  # along a door post
        ((1, 0.5), (3, 3.5), True),  # within a room
        ((1, 1.5), (-2, 1.5), False),  # a window is no door
        ((1, 0.6), (7, 2.4), True),  # slanting through the door
        ((3.9, 0.2), (4.5, 2.8), False),  # too slanting: it meets one wall beside the door
    ],
)
def test_walls_and_doors(start: tuple[float, float], end: tuple[float, float], free: bool) -> None:
    plan = P.floor_plan(two_rooms(), stack([]), 0.0)
    assert P.free_ways(plan, np.array([start]), np.array([end]))[0] == free


def test_a_tilted_box_blocks_the_rectangle_around_its_shadow() -> None:
    tilt = np.array([[0.8, 0.0, 0.6], [0.0, 1.0, 0.0], [-0.6, 0.0, 0.8]])
    box = OrientedBox(np.array([0, 0, 0.5]), np.array([2.0, 1.0, 1.0]), tilt)
    _, half, axes = P.rectangles(stack([box]))
    assert half[0].tolist() == pytest.approx([(2 * 0.8 + 1 * 0.6) / 2, 0.5])
    assert (axes[0] == np.eye(2)).all()
