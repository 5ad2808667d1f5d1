"""Box geometry against slow routines that share nothing with it: least squares and sampling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear
from scipy.spatial.transform import Rotation

from spatial_ttt.scenes import boxes as B
from spatial_ttt.scenes.scene import Array, OrientedBox


def random_boxes(seed: int, count: int, tilted: bool, spread: float = 2.0) -> B.Boxes:
    rng = np.random.default_rng(seed)
    size = rng.uniform(0.0, 1.5, (count, 3))
    size[rng.random((count, 3)) < 0.1] = 0.0  # plates, rods and points are boxes too
    if tilted:
        axes = Rotation.random(count, rng=rng).as_matrix()
    else:
        axes = np.array([B.yaw_axes(yaw) for yaw in rng.uniform(-4, 4, count)])
        axes = np.array([turned[rng.permutation(3)] for turned in axes])  # any axis may be up
    return B.Boxes(rng.uniform(-spread, spread, (count, 3)), size, axes)


def least_squares_distance(a: B.Boxes, b: B.Boxes, n: int) -> float:
    """min |a(u) - b(v)| over points of two boxes, as bounded least squares."""
    matrix = np.hstack([a.axes[n].T, -b.axes[n].T])
    half = np.concatenate([a.size[n], b.size[n]]) / 2 + 1e-12
    target = b.center[n] - a.center[n]
    found = lsq_linear(matrix, target, bounds=(-half, half), tol=1e-14, method="bvls")
    return float(np.linalg.norm(matrix @ found.x - target))


@pytest.mark.parametrize("tilted", [False, True])
def test_closest_distance_is_the_least_squares_optimum(tilted: bool) -> None:
    a, b = random_boxes(1, 150, tilted), random_boxes(2, 150, tilted)
    expected = [least_squares_distance(a, b, n) for n in range(150)]
    assert np.mean(np.array(expected) < 1e-6) > 0.02, "some of the pairs should overlap"
    np.testing.assert_allclose(B.closest_distance(a, b), expected, atol=2e-6)


def test_mixed_pairs_take_both_ways_to_the_same_answer() -> None:
    upright, tilted = random_boxes(3, 40, False), random_boxes(4, 40, True)
    expected = [least_squares_distance(upright, tilted, n) for n in range(40)]
    np.testing.assert_allclose(B.closest_distance(upright, tilted), expected, atol=2e-6)
    general = B._tilted_distance(upright, upright.take(np.arange(40)[::-1]))
    quick = B.closest_distance(upright, upright.take(np.arange(40)[::-1]))
    np.testing.assert_allclose(general, quick, atol=1e-9)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.booleans())
def test_no_two_sampled_points_are_nearer_than_the_closest(seed: int, tilted: bool) -> None:
    pair = random_boxes(seed, 2, tilted)
    a, b = pair.take([0]), pair.take([1])
    steps = np.linspace(-0.5, 0.5, 9)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    points_a = (grid * a.size) @ a.axes[0] + a.center
    points_b = (grid * b.size) @ b.axes[0] + b.center
    sampled = np.linalg.norm(points_a[:, None] - points_b[None], axis=2).min()
    exact = float(B.closest_distance(a, b)[0])
    coarse = np.linalg.norm(np.concatenate([a.size, b.size])) / 8
    assert exact <= sampled + 1e-9
    assert sampled - exact <= coarse


def test_distance_of_hand_made_boxes() -> None:
    unit = OrientedBox(np.zeros(3), np.ones(3), np.eye(3))
    beside = OrientedBox(np.array([3.0, 0, 0]), np.ones(3), np.eye(3))
    over = OrientedBox(np.array([2.0, 2.0, 2.0]), np.ones(3), np.eye(3))
    turned = OrientedBox(np.array([2.0, 0, 0]), np.ones(3), B.yaw_axes(np.pi / 4))
    one = B.stack([unit] * 4)
    others = B.stack([beside, over, turned, unit])
    expected = [2.0, np.sqrt(3.0), 1.5 - np.sqrt(0.5), 0.0]
    np.testing.assert_allclose(B.closest_distance(one, others), expected, atol=1e-12)


@pytest.mark.parametrize("tilted", [False, True])
def test_distance_matrix_holds_every_pair(tilted: bool) -> None:
    boxes = random_boxes(5, 12, tilted)
    matrix = B.distance_matrix(boxes)
    for i in range(12):
        for j in range(12):
            pair = B.closest_distance(boxes.take([i]), boxes.take([j]))[0]
            assert matrix[i, j] == pytest.approx(0.0 if i == j else pair, abs=1e-12)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.booleans())
def test_boxes_overlap_when_they_share_a_ball(seed: int, tilted: bool) -> None:
    """Overlap by a margin means: both boxes, shrunk by less than it, still meet."""
    pair = random_boxes(seed, 2, tilted, spread=0.6)
    a, b = pair.take([0]), pair.take([1])
    if bool(B.overlaps(a, b, 0.05)[0]):
        assert least_squares_distance(a, b, 0) < 1e-6
    if least_squares_distance(a, b, 0) > 1e-6:
        assert not bool(B.overlaps(a, b)[0])


def test_overlap_tolerance_is_the_depth_of_penetration() -> None:
    a = B.stack([OrientedBox(np.zeros(3), np.ones(3), np.eye(3))])
    b = B.stack([OrientedBox(np.array([0.9, 0, 0]), np.ones(3), np.eye(3))])
    assert B.overlaps(a, b, 0.09)[0] and not B.overlaps(a, b, 0.11)[0]
    assert not B.overlaps(a, B.Boxes(b.center + np.array([0.2, 0, 0]), b.size, b.axes))[0]


def test_corners_bounds_and_containment() -> None:
    boxes = random_boxes(7, 20, True)
    corners = B.corners(boxes)
    low, high = B.bounds(boxes)
    np.testing.assert_allclose(corners.min(1), low, atol=1e-12)
    np.testing.assert_allclose(corners.max(1), high, atol=1e-12)
    for n in range(20):
        box = OrientedBox(boxes.center[n], boxes.size[n], boxes.axes[n])
        assert B.contains_points(box, corners[n]).all()
        assert not B.contains_points(box, corners[n] + 2.0 * (high[n] - low[n]) + 0.1).any()
        bigger = OrientedBox(box.center, box.size + 0.1, box.axes)
        assert B.contains_box(bigger, box) and not B.contains_box(box, bigger)


def test_shrunk_boxes_never_turn_inside_out() -> None:
    boxes = random_boxes(8, 30, True)
    shrunk = boxes.shrunk(0.2)
    assert (shrunk.size >= 0).all()
    np.testing.assert_allclose(shrunk.size, np.maximum(boxes.size - 0.4, 0))


def _shoelace(points: Array) -> float:
    total = 0.0
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        total += x0 * y1 - x1 * y0
    return total / 2


def test_footprint_of_upright_and_tilted_boxes() -> None:
    upright = OrientedBox(np.array([1.0, 2, 3]), np.array([2.0, 1, 4]), B.yaw_axes(0.3))
    polygon = B.footprint(upright)
    assert polygon.shape == (4, 2)
    assert _shoelace(polygon) == pytest.approx(2.0)
    assert B.polygon_area(polygon) == pytest.approx(2.0)
    tilted = OrientedBox(
        np.zeros(3), np.ones(3), Rotation.from_euler("xyz", [0.5, 0.4, 0.2]).as_matrix()
    )
    hull = B.footprint(tilted)
    # The shadow of a unit cube is the sum of its axes' vertical parts (Cauchy).
    assert B.polygon_area(hull) == pytest.approx(np.abs(tilted.axes[:, 2]).sum())


def test_points_in_polygon_of_an_l_shape() -> None:
    room = np.array([[0, 0], [4, 0], [4, 2], [2, 2], [2, 4], [0, 4]], dtype=float)
    points = np.array([[1, 1], [3, 1], [1, 3], [3, 3], [5, 1], [-1, 1]], dtype=float)
    inside = B.points_in_polygon(points, room)
    assert inside.tolist() == [True, True, True, False, False, False]


def test_an_empty_set_of_boxes_has_no_distances() -> None:
    nothing = B.stack([])
    assert len(nothing) == 0
    assert B.distance_matrix(nothing).shape == (0, 0)
    assert B.closest_distance(nothing, nothing).shape == (0,)
