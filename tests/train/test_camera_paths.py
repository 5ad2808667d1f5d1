"""The camera that turns around in one room."""

from __future__ import annotations

import math

import numpy as np
import pytest

from spatial_ttt.scenes.homes import home_seed, make_home
from spatial_ttt.scenes.space import CELL
from spatial_ttt.train.camera_paths import (
    EYE_HEIGHT,
    FIELD_OF_VIEW,
    PITCH,
    TURN,
    look_around,
    pinhole,
)
from spatial_ttt.train.clip_types import ClipSpec

SPEC = ClipSpec(num_slots=20, fps=2.0, width=128, height=96)


def test_a_pinhole_looks_where_it_is_told() -> None:
    spec = ClipSpec(num_slots=1, fps=2.0, width=64, height=32)
    heading, pitch = np.array([0.0, math.pi / 2]), np.array([0.0, math.pi / 6])
    camera = pinhole(spec, np.array([[1.0, 2.0, 1.5]] * 2), heading, pitch, 90.0)
    # Columns of the pose: right, down, ahead; the world's z points up.
    np.testing.assert_allclose(
        camera.camera_to_world[0, :3], [[0, 0, 1, 1], [-1, 0, 0, 2], [0, -1, 0, 1.5]], atol=1e-12
    )
    np.testing.assert_allclose(
        camera.camera_to_world[1, :3, 2], [0, math.cos(math.pi / 6), -0.5], atol=1e-12
    )
    # 45 degrees to the right of a camera 90 degrees wide is its last column.
    pixel = camera.intrinsics @ np.array([1.0, 0.0, 1.0])
    np.testing.assert_allclose(pixel, [64, 16, 1])


@pytest.mark.parametrize("seed", range(4))
def test_it_turns_about_once_inside_a_room(seed: int) -> None:
    home = make_home(home_seed("val", seed), num_rooms=1 + seed % 2)
    camera = look_around(home, SPEC, np.random.default_rng(seed))
    pose = camera.camera_to_world
    turns = pose[:, :3, :3]
    np.testing.assert_allclose(
        turns.transpose(0, 2, 1) @ turns, np.tile(np.eye(3), (40, 1, 1)), atol=1e-9
    )
    np.testing.assert_allclose(np.linalg.det(turns), 1.0)
    np.testing.assert_allclose(camera.times, SPEC.times)
    down = np.degrees(np.arcsin(-pose[:, 2, 2]))
    assert (down >= PITCH[0] - 1e-9).all() and (down <= PITCH[1] + 1e-9).all()
    heading = np.unwrap(np.arctan2(pose[:, 1, 2], pose[:, 0, 2]))
    assert TURN[0] * 0.85 <= abs(math.degrees(heading[-1] - heading[0])) <= TURN[1] * 1.15
    assert EYE_HEIGHT[0] <= pose[0, 2, 3] <= EYE_HEIGHT[1] and np.ptp(pose[:, 2, 3]) == 0
    fov = 2 * math.degrees(math.atan(SPEC.width / 2 / camera.intrinsics[0, 0]))
    assert FIELD_OF_VIEW[0] <= fov <= FIELD_OF_VIEW[1]
    ends = pose[[0, -1], :2, 3]
    assert np.linalg.norm(ends[1] - ends[0]) < 1.5
    assert any(stands_free(space, ends) for space in home.spaces)


def stands_free(space, places) -> bool:
    bounds = space.room.bounds
    cells = np.floor((places - [bounds.x0, bounds.y0]) / CELL).astype(int)
    inside = (cells >= 0).all() and (cells < space.free.shape).all()
    return bool(inside and space.free[cells[:, 0], cells[:, 1]].all())


def test_the_same_seed_films_the_same_and_another_does_not() -> None:
    home = make_home(home_seed("val", 0), num_rooms=1)
    first, again, other = (
        look_around(home, SPEC, np.random.default_rng(n)).camera_to_world for n in (1, 1, 2)
    )
    assert (first == again).all()
    assert np.abs(first - other).max() > 0.1
