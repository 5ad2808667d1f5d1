"""Ways through a home: shortest comfortable paths in a room's walking grid, straight through doors.

`RoomPaths` answers paths between two floor points of one room; `tour` is an order of rooms in which
each next one is reached through a door; `clearance` measures how far points are from all solids.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

from spatial_ttt.scenes.dice import Dice
from spatial_ttt.scenes.homes import Home
from spatial_ttt.scenes.scene import Array
from spatial_ttt.scenes.space import BODY_HEIGHT, CELL, CROSS, STEP_OVER, RoomSpace

Point = tuple[float, float]
_STRETCH = 16  # points of a path looked at together


class Gate(NamedTuple):
    """A door one can walk through: the rooms, and the points 0.4 m before it on either side."""

    rooms: tuple[int, int]
    points: tuple[Point, Point]


def gates_of(home: Home) -> list[Gate]:
    """All passable doors between rooms."""
    out = []
    for opening in home.plan.openings:
        if opening.kind == "door" and len(opening.edges) == 2:
            middle = (opening.low + opening.high) / 2.0
            a, b = opening.edges
            out.append(Gate((a.room_id, b.room_id), (a.point(middle, 0.4), b.point(middle, 0.4))))
    return out


def tour(home: Home, dice: Dice, start: int, room_ids: tuple[int, ...]) -> list[int]:
    """A walk over the rooms' door tree that enters every wanted room and ends in the last one."""
    neighbours: dict[int, list[int]] = {room: [] for room in room_ids}
    for gate in gates_of(home):
        a, b = gate.rooms
        if a in neighbours and b in neighbours:
            neighbours[a].append(b)
            neighbours[b].append(a)
    order: list[int] = []

    def visit(room: int, parent: int) -> None:
        order.append(room)
        for other in dice.shuffled(neighbours[room]):
            if other != parent:
                visit(other, room)
                order.append(room)

    visit(start, -1)
    fresh = set(room_ids)
    last = 0
    for index, room in enumerate(order):
        if room in fresh:
            fresh.discard(room)
            last = index
    return order[: last + 1]


class RoomPaths:
    """Paths in one room's walkable region, drawn towards the middle of free space."""

    def __init__(self, space: RoomSpace) -> None:
        self.space = space
        labels, _ = ndimage.label(space.free, CROSS)
        if space.gates:
            main = int(labels[space.cell(*space.gates[0])])
        else:
            main = int(np.bincount(labels.ravel())[1:].argmax()) + 1
        self.free: NDArray[np.bool_] = labels == main
        padded = np.pad(self.free, 1)
        self.distance: Array = ndimage.distance_transform_edt(padded)[1:-1, 1:-1] * CELL
        self._index = np.full(self.free.shape, -1, dtype=np.int64)
        self._index[self.free] = np.arange(int(self.free.sum()))
        self._cells = np.argwhere(self.free)
        self._graph = self._make_graph()

    def _make_graph(self) -> csr_matrix:
        """Eight neighbours; a diagonal step needs both its corners free. Every step both ways."""
        free, shape = self.free, self.free.shape
        cost = 1.0 + 1.5 * np.maximum(0.0, 0.5 - self.distance)
        rows, columns, weights = [], [], []
        for di, dj in ((1, 0), (0, 1), (1, 1), (1, -1)):
            i0, i1 = 0, shape[0] - di
            j0, j1 = max(0, -dj), shape[1] - max(0, dj)
            here = (slice(i0, i1), slice(j0, j1))
            there = (slice(i0 + di, i1 + di), slice(j0 + dj, j1 + dj))
            open_step = free[here] & free[there]
            if di and dj:
                side_a = (slice(i0 + di, i1 + di), slice(j0, j1))
                side_b = (slice(i0, i1), slice(j0 + dj, j1 + dj))
                open_step &= free[side_a] & free[side_b]
            rows.append(self._index[here][open_step])
            columns.append(self._index[there][open_step])
            length = CELL * (2.0**0.5 if di and dj else 1.0)
            weights.append(length * 0.5 * (cost[here] + cost[there])[open_step])
        size = len(self._cells)
        ways = (np.concatenate(rows), np.concatenate(columns))
        # Among equally short paths the order of neighbours decides: by index, further ones first.
        row, column = np.concatenate(ways), np.concatenate(ways[::-1])
        order = np.lexsort((column, column < row, row))
        starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=size))])
        weight = np.tile(np.concatenate(weights), 2)
        return csr_matrix((weight[order], column[order], starts), shape=(size, size))

    def center(self, cell: NDArray[Any]) -> Point:
        """The floor point in the middle of a grid cell."""
        bounds = self.space.room.bounds
        return (
            bounds.x0 + (float(cell[0]) + 0.5) * CELL,
            bounds.y0 + (float(cell[1]) + 0.5) * CELL,
        )

    def middle(self) -> Point:
        """The floor point in the middle of where one can walk."""
        return self.center(np.mean(self._cells, axis=0))

    def nearest(self, point: Point) -> int:
        """The index of the walkable cell nearest to a floor point."""
        cell = self.space.cell(*point)
        if self._index[cell] >= 0:
            return int(self._index[cell])
        gap = self._cells - np.array(cell)
        return int((gap * gap).sum(1).argmin())

    def path(self, start: Point, goal: Point) -> list[Point]:
        """Floor points from start to goal; both ends included as given."""
        a, b = self.nearest(start), self.nearest(goal)
        _, before = dijkstra(self._graph, indices=a, return_predecessors=True)
        cells = [b]
        while cells[-1] != a:
            cells.append(int(before[cells[-1]]))
        return [start, *(self.center(self._cells[c]) for c in cells[-2:0:-1]), goal]

    def viewpoints(self, dice: Dice, number: int) -> list[Point]:
        """Spots with room around them, far from each other."""
        score = np.minimum(self.distance[self.free], 0.9) ** 1.5
        out: list[Point] = []
        far = np.ones(len(self._cells))
        for _ in range(number):
            noise = 0.7 + 0.6 * np.array([dice.random() for _ in range(8)])
            best = int((score * far * np.resize(noise, len(far))).argmax())
            out.append(self.center(self._cells[best]))
            gap = (self._cells - self._cells[best]).astype(np.float64) * CELL
            far = np.minimum(far, (gap * gap).sum(1) / 9.0)
        return out


def obstacles(home: Home) -> Array:
    """Everything a walker can bump into, as [N, 4] floor rectangles x0, y0, x1, y1 (m)."""
    rects = [
        (p.block.x0, p.block.y0, p.block.x1, p.block.y1)
        for p in home.placed
        if p.block.z0 < BODY_HEIGHT and p.block.z1 > STEP_OVER
    ]
    parts = home.parts
    building = parts.object_id == 0
    low, high = parts.center - parts.half_size, parts.center + parts.half_size
    solid = building & (low[:, 2] < BODY_HEIGHT) & (high[:, 2] > STEP_OVER)
    walls = np.concatenate([low[solid, :2], high[solid, :2]], axis=1)
    return np.concatenate([np.array(rects, dtype=np.float64).reshape(-1, 4), walls])


def clearance(rects: Array, points: Array) -> Array:
    """Distance of each floor point [N, 2] to the nearest rectangle, m; 0 inside one."""
    out = np.full(len(points), np.inf)
    for x0, y0, x1, y1 in rects:
        dx = np.maximum(np.maximum(x0 - points[:, 0], points[:, 0] - x1), 0.0)
        dy = np.maximum(np.maximum(y0 - points[:, 1], points[:, 1] - y1), 0.0)
        np.minimum(out, dx * dx + dy * dy, out=out)
    return np.asarray(np.sqrt(out))


def keeps_clear(rects: Array, points: Array, least: float) -> bool:
    """Whether `clearance` is at least `least` metres at every point [N, 2] of a path.

    Only stretches of the path that come near a rectangle are measured.
    """
    starts = np.arange(0, len(points), _STRETCH)
    low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
    gap = np.maximum(rects[:, None, :2] - high, low - rects[:, None, 2:])  # [R, stretches, 2]
    rect, stretch = np.nonzero((gap < least + 1e-6).all(2))
    index = np.minimum(starts[stretch, None] + np.arange(_STRETCH), len(points) - 1)
    near, box = points[index], rects[rect, None]
    away = np.maximum(np.maximum(box[..., :2] - near, near - box[..., 2:]), 0.0)
    squared = away[..., 0] * away[..., 0] + away[..., 1] * away[..., 1]
    return bool(np.sqrt(squared.min(initial=np.inf)) >= least)
