"""The free space of one room: what stands where, what must stay free, and where one can walk.

All tests use upright boxes aligned with x and y; a turned piece of furniture counts with the box
around it, so the tests are on the safe side.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spatial_ttt.scenes.catalogue.mesh import Furniture, cosine_sine
from spatial_ttt.scenes.floorplan import Edge, FloorPlan, PlanOpening, PlanRoom
from spatial_ttt.scenes.program import Rect

CELL = 0.1
"""Side of a cell of the walking grid, metres."""
BODY_RADIUS = 0.24
"""Grid cells whose centre is nearer than this to something solid cannot be walked on, metres."""
BODY_HEIGHT = 1.85
STEP_OVER = 0.02
"""Things no higher than this (rugs) are walked on, metres."""
THIN = 0.09
"""Things on a wall flatter than this do not narrow the way, metres."""
SILL = 0.03
"""How far a window sill stands out from its wall, metres."""
DOOR_ZONE = 0.9
"""Depth of the floor kept free before each door, metres."""

Bool2 = NDArray[np.bool_]


class Block(NamedTuple):
    """A solid box aligned with the world's axes."""

    x0: float
    y0: float
    z0: float
    x1: float
    y1: float
    z1: float


class Placed(NamedTuple):
    """A piece of furniture in the world, and what holds it up."""

    furniture: Furniture
    x: float
    y: float
    z: float
    yaw: float
    support: int  # index in the home's list of placed things, or one of the constants below
    block: Block
    room_id: int


FLOOR, WALL_SIDE, CEILING = -1, -2, -3
CROSS = ndimage.generate_binary_structure(2, 1)
"""Which neighbours of a cell one can step to: four, so no walk squeezes between corners."""
_BUILDING = -9  # stands for walls and door leaves in a room's list of solids


def block_of(furniture: Furniture, x: float, y: float, z: float, yaw: float) -> Block:
    """The upright box around a piece of furniture."""
    c, s = cosine_sine(yaw)
    width, depth, height = furniture.size
    hx = (abs(c) * width + abs(s) * depth) / 2.0
    hy = (abs(s) * width + abs(c) * depth) / 2.0
    return Block(x - hx, y - hy, z, x + hx, y + hy, z + height)


def overlap(a: Block, b: Block, slack: float = 1e-4) -> bool:
    """Whether two blocks share space; touching does not count."""
    return overlaps_any(a, (b,), slack)


def overlaps_any(block: Block, others: Iterable[Block], slack: float = 1e-4) -> bool:
    """Whether a block shares space with any of the others; touching does not count."""
    x0, y0, z0, x1, y1, z1 = block
    right, back, top = x1 - slack, y1 - slack, z1 - slack
    for ox0, oy0, oz0, ox1, oy1, oz1 in others:
        if (
            ox0 < right
            and oy0 < back
            and x0 < ox1 - slack
            and y0 < oy1 - slack
            and oz0 < top
            and z0 < oz1 - slack
        ):
            return True
    return False


class RoomSpace:
    """One room while it is being furnished."""

    def __init__(self, plan: FloorPlan, room: PlanRoom) -> None:
        self.room = room
        self.height = plan.height
        self.openings = tuple(o for o in plan.openings if room.room_id in o.rooms)
        self.solids: list[tuple[Block, int]] = []  # with the index of the placed thing
        self.zones: list[Block] = []
        self.gates: list[tuple[float, float]] = []  # where one steps in, [x, y]
        self._shape = (
            max(int(room.bounds.width / CELL), 1),
            max(int(room.bounds.depth / CELL), 1),
        )
        self.free: Bool2 = np.zeros(self._shape, dtype=np.bool_)
        edge = int(np.ceil(BODY_RADIUS / CELL - 0.5))
        self.free[edge : self._shape[0] - edge, edge : self._shape[1] - edge] = True
        if room.notch is not None:
            self.solids.append(
                (Block(*room.notch[:2], 0.0, *room.notch[2:], plan.height), _BUILDING)
            )
            self.free = self.without(room.notch)
        for opening in self.openings:
            self._add_opening(opening)

    def _add_opening(self, opening: PlanOpening) -> None:
        """Keep floor before doors free, walls before windows free of tall things."""
        edge = next(e for e in opening.edges if e.room_id == self.room.room_id)
        if opening.kind == "window":
            zone = edge.strip(opening.low - 0.05, opening.high + 0.05, 0.35)
            low, top = opening.bottom - 0.04, opening.top
            self.zones.append(Block(zone.x0, zone.y0, low, zone.x1, zone.y1, top))
            sill = edge.strip(opening.low - 0.04, opening.high + 0.04, SILL)
            high = opening.bottom + 0.02
            self.solids.append((Block(sill.x0, sill.y0, low, sill.x1, sill.y1, high), _BUILDING))
            return
        zone = edge.strip(opening.low - 0.08, opening.high + 0.08, DOOR_ZONE)
        self.zones.append(Block(zone.x0, zone.y0, STEP_OVER, zone.x1, zone.y1, BODY_HEIGHT + 0.2))
        if opening.leaf == "open" and edge is opening.edges[0]:
            at = opening.low if opening.hinge < 0 else opening.high
            leaf = edge.strip(at - 0.05, at + 0.05, opening.high - opening.low)
            self.solids.append(
                (Block(leaf.x0, leaf.y0, 0.0, leaf.x1, leaf.y1, opening.top), _BUILDING)
            )
            self.free = self.without(leaf)
        if opening.leaf != "closed":
            self.gates.append(edge.point((opening.low + opening.high) / 2.0, 0.4))

    def copy(self) -> RoomSpace:
        """The same space, to be furnished further without changing this one."""
        other = copy.copy(self)
        other.solids, other.zones, other.free = (
            list(self.solids),
            list(self.zones),
            self.free.copy(),
        )
        return other

    def without(self, rect: Rect) -> Bool2:
        """The walkable cells once this rectangle is solid."""
        out = self.free.copy()
        x0, y0 = self.room.bounds.x0, self.room.bounds.y0
        i0 = max(int(np.ceil((rect.x0 - BODY_RADIUS - x0) / CELL - 0.5)), 0)
        j0 = max(int(np.ceil((rect.y0 - BODY_RADIUS - y0) / CELL - 0.5)), 0)
        i1 = int(np.floor((rect.x1 + BODY_RADIUS - x0) / CELL - 0.5)) + 1
        j1 = int(np.floor((rect.y1 + BODY_RADIUS - y0) / CELL - 0.5)) + 1
        if i1 > 0 and j1 > 0:
            out[i0:i1, j0:j1] = False
        return out

    def cell(self, x: float, y: float) -> tuple[int, int]:
        """The grid cell of a floor point, clamped to the room."""
        i = int((x - self.room.bounds.x0) / CELL)
        j = int((y - self.room.bounds.y0) / CELL)
        return min(max(i, 0), self._shape[0] - 1), min(max(j, 0), self._shape[1] - 1)

    def is_walkable(self, free: Bool2) -> bool:
        """Whether all gates lie in one walkable region that holds most of the free floor."""
        labels, count = ndimage.label(free, CROSS)
        if count == 0:
            return False
        gates = self.gates or [
            ((self.room.bounds.x0 + self.room.bounds.x1) / 2, self.room.bounds.y0)
        ]
        if self.gates:
            seen = {int(labels[self.cell(*gate)]) for gate in gates}
            if len(seen) != 1 or 0 in seen:
                return False
            main = seen.pop()
            size = int(np.count_nonzero(labels == main))
        else:
            size = int(np.bincount(labels.ravel())[1:].max())
        return size >= 60 and size >= 0.7 * int(np.count_nonzero(free))

    def fits(self, block: Block, skip: int = -99, ignore_zones: bool = False) -> bool:
        """Inside the room, clear of everything placed (but `skip`) and of the kept-free zones."""
        bounds = self.room.bounds
        if block.x0 < bounds.x0 - 1e-4 or block.x1 > bounds.x1 + 1e-4:
            return False
        if block.y0 < bounds.y0 - 1e-4 or block.y1 > bounds.y1 + 1e-4:
            return False
        if block.z1 > self.height + 1e-4:
            return False
        if overlaps_any(block, (solid for solid, index in self.solids if index != skip)):
            return False
        return ignore_zones or not overlaps_any(block, self.zones)

    def leaves_way(self, block: Block) -> Bool2 | None:
        """The walkable cells with this block in place, or None when it would bar the way."""
        if block.z0 >= BODY_HEIGHT or block.z1 <= STEP_OVER:
            return self.free
        if min(block.x1 - block.x0, block.y1 - block.y0) < THIN and block.z0 > 0.3:
            return self.free
        free = self.without(Rect(block.x0, block.y0, block.x1, block.y1))
        return free if self.is_walkable(free) else None

    def add(self, block: Block, index: int, free: Bool2 | None = None) -> None:
        """Make a block solid."""
        if block.z1 - block.z0 > STEP_OVER:
            self.solids.append((block, index))
        if free is not None:
            self.free = free


def yaw_of(normal: tuple[int, int]) -> float:
    """The yaw at which furniture's front (-y) looks along a wall's inward normal."""
    quarter = {(0, -1): 0, (1, 0): 1, (0, 1): 2, (-1, 0): 3}[normal]
    return round(quarter * 1.5707963267948966, 9)


def against(edge: Edge, furniture: Furniture, along: float, gap: float) -> tuple[float, float]:
    """The floor point of furniture whose back is `gap` from a wall, centred `along` it."""
    return edge.point(along, gap + furniture.size[1] / 2.0)
