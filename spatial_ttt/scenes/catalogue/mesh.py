"""How a piece of furniture is put together from solids.

Local axes: x to the right, y to the back (the wall side), z up; the front faces -y. A mesh may be
built around any origin: `finish` moves it so that the footprint is centred on (0, 0) and the lowest
point lies at z = 0, and works out the size from the parts, so that the box is tight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from spatial_ttt.scenes.catalogue.palette import Paint
from spatial_ttt.scenes.scene import PartKind

Vec = tuple[float, float, float]
Turn = tuple[float, float, float, float, float, float, float, float, float]
"""A part's own unit axes as rows, flattened."""

UPRIGHT: Turn = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
ALONG_X: Turn = (0.0, 0.0, -1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0)  # own z points along x
ALONG_Y: Turn = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 1.0, 0.0)  # own z points along y


def cosine_sine(angle: float) -> tuple[float, float]:
    """Cosine and sine, rounded so that every machine's maths library gives the same bytes."""
    return round(math.cos(angle), 9), round(math.sin(angle), 9)


def yawed(angle: float) -> Turn:
    """Turned about z by an angle in radians."""
    c, s = cosine_sine(angle)
    return (c, s, 0.0, -s, c, 0.0, 0.0, 0.0, 1.0)


def tilted(angle: float, yaw: float = 0.0) -> Turn:
    """Leaned about the own x axis (positive: the top goes to the back), then turned about z."""
    c, s = cosine_sine(-angle)
    cy, sy = cosine_sine(yaw)
    return (cy, sy, 0.0, -sy * c, cy * c, s, sy * s, -cy * s, c)


def rolled(angle: float) -> Turn:
    """Leaned about y (positive: the top goes to the right)."""
    c, s = cosine_sine(angle)
    return (c, 0.0, -s, 0.0, 1.0, 0.0, s, 0.0, c)


class Solid(NamedTuple):
    """One part in local axes."""

    kind: int
    center: Vec
    half: Vec
    turn: Turn
    paint: Paint


class Surface(NamedTuple):
    """A level top where things may stand, in local metres, and the free height above it."""

    x0: float
    y0: float
    x1: float
    y1: float
    z: float
    headroom: float


@dataclass(frozen=True, slots=True)
class Furniture:
    """One instance of a category: footprint centred on the origin, bottom at z = 0."""

    category: str
    color: str
    solids: tuple[Solid, ...]
    size: Vec  # m: width x, depth y, height z
    surfaces: tuple[Surface, ...] = ()


def scaled(thing: Furniture, factor: float) -> Furniture:
    """The same thing, larger or smaller all over."""

    def times(vec: Vec) -> Vec:
        return (vec[0] * factor, vec[1] * factor, vec[2] * factor)

    solids = tuple(
        Solid(s.kind, times(s.center), times(s.half), s.turn, s.paint) for s in thing.solids
    )
    surfaces = tuple(
        Surface(*times(s[:3]), *times(s[3:]))._replace(headroom=s.headroom) for s in thing.surfaces
    )
    return Furniture(thing.category, thing.color, solids, times(thing.size), surfaces)


def reach(solid: Solid) -> Vec:
    """Half lengths of the smallest box along the local axes around a solid."""
    hx, hy, hz = solid.half
    turn = solid.turn
    if turn is UPRIGHT:
        return solid.half
    columns = (
        (turn[0], turn[3], turn[6]),
        (turn[1], turn[4], turn[7]),
        (turn[2], turn[5], turn[8]),
    )
    if solid.kind == PartKind.BOX:
        x, y, z = (abs(a) * hx + abs(b) * hy + abs(c) * hz for a, b, c in columns)
    elif solid.kind == PartKind.CYLINDER:
        x, y, z = (math.sqrt((a * hx) ** 2 + (b * hy) ** 2) + abs(c) * hz for a, b, c in columns)
    else:
        x, y, z = (math.sqrt((a * hx) ** 2 + (b * hy) ** 2 + (c * hz) ** 2) for a, b, c in columns)
    return (x, y, z)


class Mesh:
    """Collects solids, then `finish` makes the furniture."""

    def __init__(self) -> None:
        self._solids: list[Solid] = []
        self._surfaces: list[Surface] = []

    def _add(self, kind: int, center: Vec, size: Vec, paint: Paint, turn: Turn) -> None:
        half = (size[0] / 2.0, size[1] / 2.0, size[2] / 2.0)
        self._solids.append(Solid(kind, center, half, turn, paint))

    def box(self, center: Vec, size: Vec, paint: Paint, turn: Turn = UPRIGHT) -> None:
        """A box by its centre and full lengths."""
        self._add(PartKind.BOX, center, size, paint, turn)

    def cylinder(self, center: Vec, size: Vec, paint: Paint, turn: Turn = UPRIGHT) -> None:
        """A cylinder: two diameters and the height along its own z."""
        self._add(PartKind.CYLINDER, center, size, paint, turn)

    def ellipsoid(self, center: Vec, size: Vec, paint: Paint, turn: Turn = UPRIGHT) -> None:
        """An ellipsoid by its three diameters."""
        self._add(PartKind.ELLIPSOID, center, size, paint, turn)

    def legs(self, span: tuple[float, float], height: float, thick: float, paint: Paint) -> None:
        """Four legs whose centres lie `span` apart, from the floor up."""
        for sx in (-0.5, 0.5):
            for sy in (-0.5, 0.5):
                center = (sx * span[0], sy * span[1], height / 2.0)
                self.box(center, (thick, thick, height), paint)

    def surface(self, center: Vec, width: float, depth: float, headroom: float = 1.0) -> None:
        """Declare a level top where things may stand."""
        x, y, z = center
        self._surfaces.append(
            Surface(x - width / 2, y - depth / 2, x + width / 2, y + depth / 2, z, headroom)
        )

    def finish(self, category: str, color: str) -> Furniture:
        """Centre the footprint, put the bottom at z = 0 and measure the tight box."""
        x0 = y0 = z0 = 1e9
        x1 = y1 = z1 = -1e9
        for solid in self._solids:
            (x, y, z), (hx, hy, hz) = solid.center, reach(solid)
            x0, y0, z0 = min(x0, x - hx), min(y0, y - hy), min(z0, z - hz)
            x1, y1, z1 = max(x1, x + hx), max(y1, y + hy), max(z1, z + hz)
        dx, dy, dz = -(x0 + x1) / 2.0, -(y0 + y1) / 2.0, -z0
        solids = tuple(
            Solid(kind, (x + dx, y + dy, z + dz), half, turn, paint)
            for kind, (x, y, z), half, turn, paint in self._solids
        )
        surfaces = tuple(
            Surface(s.x0 + dx, s.y0 + dy, s.x1 + dx, s.y1 + dy, s.z + dz, s.headroom)
            for s in self._surfaces
        )
        size = (x1 - x0, y1 - y0, z1 - z0)
        return Furniture(category, color, solids, size, surfaces)
