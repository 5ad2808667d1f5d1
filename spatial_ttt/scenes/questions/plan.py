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
    origin = ((start - center)[:, None] * axes).sum(2)
    step = (np.broadcast_to(to - start, center.shape)[:, None] * axes).sum(2)
    with np.errstate(divide="ignore", invalid="ignore"):
        t1, t2 = (-half - origin) / step, (half - origin) / step
    inside = np.abs(origin) <= half
    parallel = np.abs(step) < 1e-12
    near = np.where(parallel, np.where(inside, -np.inf, np.inf), np.minimum(t1, t2)).max(1)
    far = np.where(parallel, np.where(inside, np.inf, -np.inf), np.maximum(t1, t2)).min(1)
    hit = (near <= far) & (far >= 0)
    result: Array = np.where(hit, np.maximum(near, 0.0), np.inf)
    return result


def free_ways(plan: Plan, starts: Array, ends: Array) -> Bools:
    """Which of K straight ways [K, 2] -> [K, 2] are free."""
    ways, blocks = len(starts), len(plan.center)
    grown = plan.half + CLEARANCE
    shape = (ways * blocks, 2)
    tiled = (
        np.broadcast_to(plan.center, (ways, blocks, 2)).reshape(shape),
        np.broadcast_to(grown, (ways, blocks, 2)).reshape(shape),
        np.broadcast_to(plan.axes, (ways, blocks, 2, 2)).reshape(-1, 2, 2),
    )
    share = entry(tiled, np.repeat(starts, blocks, axis=0), np.repeat(ends, blocks, axis=0))
    blocked = (share <= 1.0).reshape(ways, blocks).any(1)
    return np.asarray(~blocked & ~_meets_wall(plan, starts, ends))


def _meets_wall(plan: Plan, starts: Array, ends: Array) -> Bools:
    """Which ways cross or brush a wall anywhere but in a door, [K]."""
    if not len(plan.walls):
        return np.zeros(len(starts), dtype=bool)
    a, b = starts[:, None], ends[:, None]  # [K, 1, 2]
    c, d = plan.walls[None, :, 0], plan.walls[None, :, 1]
    crosses = (_side(a, b, c) != _side(a, b, d)) & (_side(c, d, a) != _side(c, d, b))
    along, wall = b - a, d - c
    parallel = along[..., 0] * wall[..., 1] - along[..., 1] * wall[..., 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = c - a
        share = (gap[..., 0] * wall[..., 1] - gap[..., 1] * wall[..., 0]) / parallel
    point = a + np.where(np.isfinite(share), share, 0.0)[..., None] * along  # [K, W, 2]
    result: Bools = (crosses & ~_in_door(plan, point)).any(1)
    return result


def _side(a: Array, b: Array, point: Array) -> Bools:
    """Which side of the line a -> b the point lies on."""
    cross = (b - a)[..., 0] * (point - a)[..., 1] - (b - a)[..., 1] * (point - a)[..., 0]
    return np.asarray(cross > 0)


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
