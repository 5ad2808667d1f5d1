import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_ttt.scenes.catalogue.mesh import (
    ALONG_X,
    ALONG_Y,
    UPRIGHT,
    Mesh,
    Solid,
    Turn,
    reach,
    rolled,
    tilted,
    yawed,
)
from spatial_ttt.scenes.catalogue.palette import WHITE
from spatial_ttt.scenes.scene import PartKind

angles = st.floats(-3.0, 3.0)


@settings(derandomize=True, deadline=None)
@given(angles, angles)
def test_turns_are_rotations(a: float, b: float) -> None:
    for turn in (yawed(a), tilted(a, b), rolled(a), ALONG_X, ALONG_Y, UPRIGHT):
        m = np.array(turn).reshape(3, 3)
        assert np.allclose(m @ m.T, np.eye(3), atol=1e-8)
        assert np.linalg.det(m) == pytest.approx(1.0)


def test_what_turns_mean() -> None:
    assert tilted(0.3)[6:] == pytest.approx((0.0, math.sin(0.3), math.cos(0.3)))  # top to the back
    assert rolled(0.3)[6:] == pytest.approx((math.sin(0.3), 0.0, math.cos(0.3)))  # to the right
    assert ALONG_X[6:] == (1.0, 0.0, 0.0) and ALONG_Y[6:] == (0.0, 1.0, 0.0)


def _surface_points(kind: int, half: tuple[float, float, float]) -> np.ndarray:  # type: ignore[type-arg]
    u = np.linspace(0, 2 * np.pi, 181)
    if kind == PartKind.BOX:
        return np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)]) * half
    if kind == PartKind.CYLINDER:
        rim = np.stack([np.cos(u), np.sin(u), np.ones_like(u)], 1)
        return np.concatenate([rim, rim * (1, 1, -1)]) * half
    v = np.linspace(0, np.pi, 91)
    grid = [np.outer(np.sin(v), np.cos(u)), np.outer(np.sin(v), np.sin(u))]
    grid.append(np.outer(np.cos(v), np.ones_like(u)))
    return np.stack(grid, -1).reshape(-1, 3) * half


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.sampled_from(list(PartKind)), angles, angles)
def test_reach_bounds_the_solid_tightly(kind: PartKind, a: float, b: float) -> None:
    half = (0.2, 0.5, 0.9)
    turn: Turn = tilted(a, b)
    points = _surface_points(kind, half) @ np.array(turn).reshape(3, 3)
    solid = Solid(kind, (0.0, 0.0, 0.0), half, turn, WHITE)
    assert points.max(0) == pytest.approx(reach(solid), abs=2e-3)


def test_finish_centres_and_grounds() -> None:
    mesh = Mesh()
    mesh.box((5.0, -2.0, 3.0), (1.0, 2.0, 0.5), WHITE)
    mesh.surface((5.0, -2.0, 3.25), 0.8, 1.8)
    thing = mesh.finish("box", "white")
    assert thing.size == pytest.approx((1.0, 2.0, 0.5))
    assert thing.solids[0].center == pytest.approx((0.0, 0.0, 0.25))
    assert thing.surfaces[0][:5] == pytest.approx((-0.4, -0.9, 0.4, 0.9, 0.5))
