"""The benchmark's sampled distance: its rule told apart, and what the shortcut must not change."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from spatial_ttt.scenes.boxes import Boxes, closest_distance, yaw_axes
from spatial_ttt.scenes.sampling import NO_DISTANCE, SAMPLING_INSET, sample_box, sampled_distance


def turned_boxes(seed: int, count: int) -> Boxes:
    rng = np.random.default_rng(seed)
    axes = np.array([yaw_axes(yaw) for yaw in rng.uniform(0, 6, count)])
    return Boxes(rng.uniform(-2, 2, (count, 3)), rng.uniform(0.05, 1.0, (count, 3)), axes)


def test_a_box_on_exact_numbers_keeps_its_faces_and_loses_its_core() -> None:
    points = sample_box(np.zeros(3), np.array([1.0, 1.0, 1.0]), np.eye(3))
    assert np.abs(points).max() == 0.5
    assert np.abs(points).max(1).min() > 0.25
    spacing = np.unique(points[:, 0])
    assert len(spacing) == 20 and np.diff(spacing).max() == pytest.approx(1 / 19)


def test_all_points_lie_in_the_box() -> None:
    boxes = turned_boxes(1, 20)
    for n in range(20):
        points = sample_box(boxes.center[n], boxes.size[n], boxes.axes[n])
        local = (points - boxes.center[n]) @ boxes.axes[n].T
        assert len(points) and (np.abs(local) <= boxes.size[n] / 2 + 1e-12).all()


def test_the_shortcut_finds_the_least_distance_of_all_points() -> None:
    a, b = turned_boxes(2, 25), turned_boxes(3, 25)
    for n, distance in enumerate(sampled_distance(a, b)):
        tree = cKDTree(sample_box(a.center[n], a.size[n], a.axes[n]))
        expected = tree.query(sample_box(b.center[n], b.size[n], b.axes[n]))[0].min()
        if expected > NO_DISTANCE:
            assert distance == pytest.approx(expected, abs=1e-12)
        else:
            assert distance <= NO_DISTANCE


def test_it_is_never_below_the_exact_distance_and_near_the_closed_form() -> None:
    a, b = turned_boxes(4, 60), turned_boxes(5, 60)
    sampled = sampled_distance(a, b)
    apart = closest_distance(a, b) > 0
    exact = closest_distance(a, b)[apart]
    closed = closest_distance(a.shrunk(SAMPLING_INSET), b.shrunk(SAMPLING_INSET))[apart]
    assert (sampled[apart] >= exact - 1e-12).all()
    assert np.abs(sampled[apart] - closed).max() < 0.1
    assert abs((sampled[apart] - closed).mean()) < abs((sampled[apart] - exact).mean())


def test_plates_and_points_are_sampled_too() -> None:
    for size in ([0.0, 1.0, 1.0], [0.0, 0.0, 0.0], [0.01, 0.01, 0.01]):
        points = sample_box(np.ones(3), np.array(size), np.eye(3))
        assert len(points) >= 1 and (np.abs(points - 1.0) <= np.array(size) / 2 + 1e-9).all()
