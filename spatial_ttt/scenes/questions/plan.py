"""The floor plan a route is found on: which straight ways are free of furniture and walls.

A way is free if a robot `CLEARANCE` wide on each side can roll along it: no box that stands in its
height band overlaps the swept strip, and every wall it meets is met within a door.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatial_ttt.scenes.boxes import Boxes, bounds, vertical_axis
from spatial_ttt.scenes.scene import Array, Scene

CLEARANCE = 0.2
"""Half the robot's width, metres."""
DOOR_REACH = 0.5
"""How far a wall line may lie from its door's line, metres: walls are thick."""
_BAND = (
    0.12,
    1.5,
)  # metres above the floor; lower things are rolled over, higher ones passed under

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Plan:
    """Obstacles as rectangles on the floor, walls and doors as segments."""

    center: Array  # [M, 2]
    half: Array  # [M, 2] m, along the rectangle's own axes
    axes: Array  # [M, 2, 2], rows are unit axes
    owner: NDArray[np.intp]  # [M] index of the box in the inventory
    walls: Array  # [W, 2, 2] start and end
    doors: Array  # [D, 2, 2]


def floor_plan(scene: Scene, boxes: Boxes, floor: float) -> Plan:
    """The plan of a scene; a tilted box blocks the rectangle around its shadow."""
    low, high = bounds(boxes)
    blocks = (high[:, 2] > floor + _BAND[0]) & (low[:, 2] < floor + _BAND[1])
    center, half, axes = rectangles(boxes)
    edges = [
        np.stack([room.polygon, np.roll(room.polygon, -1, axis=0)], axis=1) for room in scene.rooms
    ]
    doors = [
        np.stack([opening.start, opening.end])
        for opening in scene.openings
        if opening.kind == "door"
    ]
    return Plan(
        center[blocks],
        half[blocks],
        axes[blocks],
        np.flatnonzero(blocks),
        np.concatenate(edges) if edges else np.zeros((0, 2, 2)),
        np.array(doors).reshape(-1, 2, 2),
    )


def rectangles(boxes: Boxes) -> tuple[Array, Array, Array]:
    """Floor rectangles of boxes: centres [N, 2], half sizes [N, 2], axes [N, 2, 2]."""
    vertical = vertical_axis(boxes)
    rows = np.arange(len(boxes))[:, None]
    flat = np.array([[1, 2], [2, 0], [0, 1]])[np.maximum(vertical, 0)]
    half = boxes.size[rows, flat] / 2
    axes = boxes.axes[rows, flat][:, :, :2].copy()
    low, high = bounds(boxes)
    tilted = vertical < 0
    half[tilted] = ((high - low) / 2)[tilted, :2]
    axes[tilted] = np.eye(2)
    return boxes.center[:, :2], half, axes


def entry(plan_rectangle: tuple[Array, Array, Array], start: Array, to: Array) -> Array:
    """How far along start -> to, as shares [N], rectangles [N] are entered; inf if missed.

    A start inside gives 0. `start` and `to` are [2] or [N, 2].
    """
    center, half, axes = plan_rectangle
    return _enter((center, half, axes), start - center, to - start)


def _enter(plan_rectangle: tuple[Array, Array, Array], gap: Array, step: Array) -> Array:
    """Shares [..., N] at which rectangles [N] are entered on steps [..., N or 1, 2].

    `gap` [..., N, 2] leads from the rectangles' centres to where the steps begin. The two own axes of
    the rectangles come first in what is computed here: NumPy is slow at sums over a last axis of two.
    """
    _, half, axes = plan_rectangle
    along_x, along_y, half = axes[:, :, 0].T, axes[:, :, 1].T, half.T  # [2, N]
    if gap.ndim == 3:
        along_x, along_y, half = along_x[:, None], along_y[:, None], half[:, None]
    origin = gap[..., 0] * along_x + gap[..., 1] * along_y  # [2, ..., N]
    moved = step[..., 0] * along_x + step[..., 1] * along_y
    with np.errstate(divide="ignore", invalid="ignore"):
        t1, t2 = (-half - origin) / moved, (half - origin) / moved
    near, far = np.minimum(t1, t2), np.maximum(t1, t2)
    parallel = np.abs(moved) < 1e-12
    if parallel.any():
        inside = np.abs(origin) <= half
        near = np.where(parallel, np.where(inside, -np.inf, np.inf), near)
        far = np.where(parallel, np.where(inside, np.inf, -np.inf), far)
    first, last = np.maximum(near[0], near[1]), np.minimum(far[0], far[1])
    result: Array = np.where((first <= last) & (last >= 0), np.maximum(first, 0.0), np.inf)
    return result


def free_ways(plan: Plan, starts: Array, ends: Array) -> Bools:
    """Which of K straight ways [K, 2] -> [K, 2] are free."""
    shapes = (plan.center, plan.half + CLEARANCE, plan.axes)
    share = _enter(shapes, starts[:, None] - plan.center, (ends - starts)[:, None])
    blocked = (share <= 1.0).any(1)
    return np.asarray(~blocked & ~_meets_wall(plan, starts, ends))


def _meets_wall(plan: Plan, starts: Array, ends: Array) -> Bools:
    """Which ways cross or brush a wall anywhere but in a door, [K]."""
    met = np.zeros(len(starts), dtype=bool)
    if not len(plan.walls):
        return met
    a, b = starts.T[:, :, None], ends.T[:, :, None]  # [2, K, 1]
    c, d = plan.walls[:, 0].T[:, None], plan.walls[:, 1].T[:, None]  # [2, 1, W]
    along, wall, gap = b - a, d - c, c - a
    crosses = (_cross(along, gap) > 0) != (_cross(along, d - a) > 0)
    crosses &= (_cross(wall, a - c) > 0) != (_cross(wall, b - c) > 0)
    way, edge = np.nonzero(crosses)
    if len(way):
        along, wall, gap = along[:, way, 0], wall[:, 0, edge], gap[:, way, edge]
        with np.errstate(divide="ignore", invalid="ignore"):
            share = _cross(gap, wall) / _cross(along, wall)
        share = np.where(np.isfinite(share), share, 0.0)
        points = (a[:, way, 0] + share * along).T
        met[way[~_in_door(plan, points)]] = True
    return met


def _cross(a: Array, b: Array) -> Array:
    """The cross product of plane vectors [2, ...]."""
    return np.asarray(a[0] * b[1] - a[1] * b[0])


def _in_door(plan: Plan, points: Array) -> Bools:
    """Which points [..., 2] on walls lie inside a door, clear of its posts."""
    if not len(plan.doors):
        return np.zeros(points.shape[:-1], dtype=bool)
    start, end = plan.doors[:, 0], plan.doors[:, 1]
    length = np.linalg.norm(end - start, axis=1)
    unit = (end - start) / np.maximum(length, 1e-9)[:, None]
    offset = points[..., None, :] - start
    along = (offset * unit).sum(-1)
    across = np.abs(offset[..., 0] * unit[:, 1] - offset[..., 1] * unit[:, 0])
    through = (along >= CLEARANCE) & (along <= length - CLEARANCE) & (across <= DOOR_REACH)
    return np.asarray(through.any(-1))
