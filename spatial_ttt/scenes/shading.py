"""The one shading model: what colour a point on a part has. Every renderer draws with it.

`shade` is arithmetic on plain numbers and knows neither camera nor scene, so it runs unchanged on
NumPy or torch arrays, and `shading_code` writes it out as GLSL and as Triton code by tracing it.
A part becomes a record of 32 floats (`pack_parts`) whose material is already turned into numbers:
a cell pattern (planks, tiles), a grain (wood, weave), gloss, an edge line and an emission.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.scene import PartKind, Parts

Number = Any
"""A float, an array of floats, or a traced value: whatever the renderer at hand computes with."""

BACKGROUND = (186, 205, 222)
"""sRGB of a pixel whose ray hits nothing."""


class Material(IntEnum):
    """The procedural patterns that `Parts.material` names."""

    PLAIN = 0
    WOOD = 1
    TILES = 2
    WALL_PAINT = 3
    FABRIC = 4
    METAL = 5
    CARPET = 6
    WINDOW = 7
    SCREEN = 8


@dataclass(frozen=True, slots=True)
class Pattern:
    """A material in numbers. Lengths are metres, strengths 0..1."""

    cell_u: float = 1.0  # a plank's or tile's length
    cell_v: float = 1.0  # and width
    variation: float = 0.0  # brightness from cell to cell
    gap_width: float = 0.0  # half width of the line between cells
    gap_strength: float = 0.0
    grain_period: float = 1.0
    grain_stretch: float = 1.0  # how much longer the grain is than wide
    grain_strength: float = 0.0
    gloss: float = 0.0
    edge_width: float = 0.005  # half width of the line along a box's edges
    edge_strength: float = 0.30
    emission: float = 0.0  # 0 none, 1 daylight, 2 screen


PATTERNS: dict[Material, Pattern] = {
    Material.PLAIN: Pattern(),
    Material.WOOD: Pattern(0.9, 0.12, 0.16, 0.0025, 0.45, 0.022, 14.0, 0.07, edge_strength=0.4),
    Material.TILES: Pattern(0.3, 0.3, 0.05, 0.005, 0.35, gloss=0.05, edge_strength=0.0),
    Material.WALL_PAINT: Pattern(edge_strength=0.0),
    Material.FABRIC: Pattern(
        0.06, 0.06, 0.03, grain_period=0.024, grain_strength=0.10, edge_width=0.012
    ),
    Material.METAL: Pattern(
        grain_period=0.008, grain_stretch=60.0, grain_strength=0.04, gloss=0.5, edge_width=0.003
    ),
    Material.CARPET: Pattern(
        0.03, 0.03, 0.16, grain_period=0.05, grain_stretch=3.0, grain_strength=0.06, edge_width=0.05
    ),
    Material.WINDOW: Pattern(edge_strength=0.15, emission=1.0),
    Material.SCREEN: Pattern(0.16, 0.11, emission=2.0),
}

RECORD_SIZE = 32
"""Floats of a packed part; the order of `pack_parts` and of `Record`."""

PATTERN_FIELDS = tuple(field.name for field in fields(Pattern))


def pack_parts(parts: Parts) -> NDArray[np.float32]:
    """One record per part: float32 [P, 32].

    0-2 centre, 3 kind, 4-6 half size, 7 object id, 8-10 / 12-14 / 16-18 the axes, 20-22 linear
    colour, and in 11, 15, 19, 23-31 the numbers of the material in the order of PATTERN_FIELDS.
    """
    count = len(parts.kind)
    if count == 0:
        raise SceneError("there is nothing to draw: parts is empty")
    turned = np.cross(parts.axes[:, 0], parts.axes[:, 1])
    if not (np.allclose(turned, parts.axes[:, 2], atol=1e-4) and (parts.half_size > 0.0).all()):
        raise SceneError(
            "parts.axes must be right-handed unit axes and parts.half_size above zero in every part"
        )
    unknown = set(np.unique(parts.material).tolist()) - {int(m) for m in Material}
    if unknown:
        raise SceneError(f"parts.material holds {sorted(unknown)}, known are 0 to {max(Material)}")
    table = np.array([[getattr(PATTERNS[m], f) for f in PATTERN_FIELDS] for m in Material])
    pattern = table[parts.material.astype(np.int64)]
    # Round parts have no edges to draw a line along.
    pattern[:, PATTERN_FIELDS.index("edge_strength")] *= parts.kind == PartKind.BOX
    record = np.zeros((count, RECORD_SIZE), np.float32)
    record[:, 0:3], record[:, 3] = parts.center, parts.kind
    record[:, 4:7], record[:, 7] = parts.half_size, parts.object_id
    record[:, 8:11], record[:, 12:15], record[:, 16:19] = np.moveaxis(parts.axes, 1, 0)
    record[:, 20:23] = parts.color
    record[:, [11, 15, 19, 23]], record[:, 24:32] = pattern[:, :4], pattern[:, 4:]
    # The renderer keeps these in 16 bits (bfloat16); rounded here so that all renderers agree.
    looks = [11, 15, 19, *range(20, 32)]
    rounded = (record[:, looks].view(np.uint32) + np.uint32(0x8000)) & np.uint32(0xFFFF0000)
    record[:, looks] = rounded.view(np.float32)
    return record


class Vec3(NamedTuple):
    """Three numbers of any kind."""

    x: Number
    y: Number
    z: Number


class Surface(NamedTuple):
    """Where a ray met a part. Its order is the argument order of the generated code."""

    local: Vec3  # hit point in the part's axes from its centre, m
    normal: Vec3  # unit normal in the part's axes
    world: Vec3  # hit point, m
    world_normal: Vec3
    footprint: Number  # m a pixel covers at the hit: depth / focal length in pixels
    half: Vec3  # the part's half size, m
    color: Vec3  # linear RGB
    object_id: Number
    pattern: tuple[Number, ...]  # in the order of PATTERN_FIELDS


class Ops(Protocol):
    """The functions `shade` needs besides + - * / < & on its numbers."""

    def where(self, condition: Number, yes: Number, no: Number, /) -> Number: ...
    def floor(self, x: Number, /) -> Number: ...
    def sqrt(self, x: Number, /) -> Number: ...
    def abs(self, x: Number, /) -> Number: ...
    def minimum(self, a: Number, b: Number, /) -> Number: ...
    def maximum(self, a: Number, b: Number, /) -> Number: ...


KEY_LIGHT = Vec3(0.36, -0.52, 0.775)
FILL_LIGHT = Vec3(-0.80, 0.55, 0.24)


def shade(surface: Surface, ops: Ops) -> Vec3:
    """sRGB in 0..1 of a point on a part."""
    detail = _Detail(surface, ops)
    base = detail.albedo()
    light = detail.light()
    glow = detail.emission(base)
    return Vec3(*(_srgb(ops, e + b * li) for e, b, li in zip(glow[0], glow[1], light, strict=True)))


class _Detail:
    """The steps of `shade`, which share the face's coordinates and the filter width."""

    def __init__(self, surface: Surface, ops: Ops) -> None:
        self.at, self.ops = surface, ops
        self.pattern = dict(zip(PATTERN_FIELDS, surface.pattern, strict=True))
        local, half, n = surface.local, surface.half, surface.normal
        ax, ay, az = ops.abs(n.x), ops.abs(n.y), ops.abs(n.z)
        self.on_z = az >= ops.maximum(ax, ay)
        self.on_x = (ax > ay) & (az < ops.maximum(ax, ay))
        self.is_building = surface.object_id < 0.5
        u, v = ops.where(self.on_x, local.y, local.x), ops.where(self.on_z, local.y, local.z)
        half_u, half_v = ops.where(self.on_x, half.y, half.x), ops.where(self.on_z, half.y, half.z)
        # The grain runs along the longer side of a face.
        swap = half_v > half_u
        self.u, self.v = ops.where(swap, v, u), ops.where(swap, u, v)
        rest = [half[i] - ops.abs(local[i]) for i in range(3)]
        low, high = ops.minimum(rest[0], rest[1]), ops.maximum(rest[0], rest[1])
        # On a face one of the three is zero, so the middle one is the distance to the nearest edge.
        self.edge = ops.maximum(low, ops.minimum(high, rest[2]))
        self.edge_line = 1.0 - self.pattern["edge_strength"] * self.line(
            self.edge, self.pattern["edge_width"]
        )
        self._lay_cells()

    def _lay_cells(self) -> None:
        """Planks or tiles: a random number per cell, and how dark its border is."""
        ops, p = self.ops, self.pattern
        # Long cells are planks, which only floors are laid of; furniture is of one board.
        is_plank = p["cell_u"] > 1.5 * p["cell_v"]
        is_laid = self.is_building & self.on_z
        stagger, laid = ops.where(is_plank, 0.382, 0.0), ops.where(is_plank, 0.0, 1.0)
        laid = ops.where(is_laid, 1.0, laid)
        row = ops.floor(self.v / p["cell_v"])
        along = self.u / p["cell_u"] + row * stagger
        column = ops.floor(along)
        self.random = _hash(ops, laid * column + 3.0 * self.at.object_id, laid * row)
        du, dv = (along - column) * p["cell_u"], self.v - row * p["cell_v"]
        gap = ops.minimum(ops.minimum(du, p["cell_u"] - du), ops.minimum(dv, p["cell_v"] - dv))
        self.gap_line = 1.0 - laid * p["gap_strength"] * self.line(gap, p["gap_width"])

    def fade(self, period: Number) -> Number:
        """1 where a pattern of this period is wider than a few pixels, 0 where it would alias."""
        return _clamp(self.ops, 0.5 * period / self.at.footprint - 0.5)

    def line(self, distance: Number, width: Number) -> Number:
        """Share of the pixel that a line of this half width covers, so far from its middle."""
        pixel = self.at.footprint
        cover = _clamp(self.ops, (width + 0.5 * pixel - distance) / pixel)
        return cover * self.ops.minimum(2.0 * width / pixel, 1.0)

    def albedo(self) -> Vec3:
        """Colour times cells, grain and lines."""
        ops, p = self.ops, self.pattern
        cells = 1.0 + p["variation"] * (2.0 * self.random - 1.0) * self.fade(p["cell_v"])
        wave = _wave(ops, self.u / (p["grain_period"] * p["grain_stretch"]) + self.random)
        grain = _wave(ops, self.v / p["grain_period"] + 0.5 * wave + 5.0 * self.random)
        grain = 1.0 + p["grain_strength"] * grain * self.fade(p["grain_period"])
        factor = cells * grain * self.gap_line * self.edge_line
        return Vec3(*(c * factor for c in self.at.color))

    def light(self) -> Vec3:
        """Sky and bounce light, two distant lights, and darkening where light hardly gets."""
        ops, n, world = self.ops, self.at.world_normal, self.at.world
        up, down = ops.maximum(n.z, 0.0), ops.maximum(-n.z, 0.0)
        key = ops.maximum(n.x * KEY_LIGHT.x + n.y * KEY_LIGHT.y + n.z * KEY_LIGHT.z, 0.0)
        fill = ops.maximum(n.x * FILL_LIGHT.x + n.y * FILL_LIGHT.y + n.z * FILL_LIGHT.z, 0.0)
        # Slow pools of light over the floor plan, so that large plain faces are not flat.
        pools = _smooth(_wave(ops, world.x / 6.1 + 0.15)) * _smooth(_wave(ops, world.y / 5.3 + 0.4))
        near_floor = _clamp(ops, 1.0 - world.z / 0.6)
        shadow = 1.0 - 0.42 * near_floor * near_floor * (1.0 - up)
        is_building = self.is_building
        corner = _clamp(ops, 1.0 - self.edge / 0.45)
        corner = ops.where(is_building & self.on_z, 0.30 * corner * corner, 0.0)
        under = ops.where(is_building, 0.0, 0.45 * down)
        height = _clamp(ops, 0.5 + 0.5 * self.at.local.z / self.at.half.z)
        rising = ops.where(is_building, 1.0, 0.88 + 0.12 * height)
        shadow = shadow * rising * (1.0 - corner) * (1.0 - under) * (1.0 + 0.07 * pools)
        streak = _smooth(
            _wave(ops, 0.8 * world.z + 0.3 * (world.x + world.y) + 0.9 * n.x + 0.6 * n.y)
        )
        ambient = 0.55 + 0.14 * n.z + 0.22 * down + self.pattern["gloss"] * (0.2 + 0.45 * streak)
        tints = ((0.98, 1.00, 0.95), (1.00, 0.96, 0.98), (1.03, 0.88, 1.05))
        return Vec3(
            *(shadow * (a * ambient + k * 0.52 * key + f * 0.16 * fill) for a, k, f in tints)
        )

    def emission(self, base: Vec3) -> tuple[Vec3, Vec3]:
        """(light given off, colour that still reflects): windows and screens shine."""
        ops, half, kind = self.ops, self.at.half, self.pattern["emission"]
        height = _clamp(ops, 0.5 + 0.5 * self.at.local.z / half.z)
        garden = _clamp(ops, 6.0 * (0.38 - height))
        sky = (0.62 + 0.10 * height, 0.76 + 0.06 * height, 0.92)
        day = [s + garden * (g - s) for s, g in zip(sky, (0.20, 0.33, 0.13), strict=True)]
        # Only the broad face of a screen shines; its rim is dark.
        thin = ops.minimum(half.x, ops.minimum(half.y, half.z))
        across = ops.where(self.on_z, half.z, ops.where(self.on_x, half.x, half.y))
        bright = (across <= 1.01 * thin) & (self.edge > 0.012)
        warm = self.random * self.random * self.random
        low, span = (0.03, 0.10, 0.26), (0.75, 0.42, 0.06)
        picture = [
            ops.where(bright, a + 0.12 * height + b * warm, 0.01)
            for a, b in zip(low, span, strict=True)
        ]
        is_day, is_screen = (kind > 0.5) & (kind < 1.5), kind > 1.5
        glow = [
            ops.where(is_day, d * self.edge_line, ops.where(is_screen, p, 0.0))
            for d, p in zip(day, picture, strict=True)
        ]
        kept = ops.where(kind > 0.5, 0.0, 1.0)
        return Vec3(*glow), Vec3(*(kept * b for b in base))


def _clamp(ops: Ops, x: Number) -> Number:
    return ops.minimum(ops.maximum(x, 0.0), 1.0)


def _fract(ops: Ops, x: Number) -> Number:
    return x - ops.floor(x)


def _wave(ops: Ops, x: Number) -> Number:
    """A triangle wave of period 1 in -1..1."""
    return 4.0 * ops.abs(_fract(ops, x) - 0.5) - 1.0


def _smooth(x: Number) -> Number:
    """Rounds the peaks of a triangle wave."""
    return x * (1.5 - 0.5 * x * x)


def _hash(ops: Ops, a: Number, b: Number) -> Number:
    """A random-looking number in 0..1 from two whole ones, stable under float32 rounding."""
    x, y = _fract(ops, 0.1031 * a), _fract(ops, 0.1031 * b)
    mixed = x * (y + 33.33) + y * (x + 33.33) + x * (x + 33.33)
    return _fract(ops, 0.1 * (x + y + 2.0 * mixed) * (x + mixed))


def _srgb(ops: Ops, linear: Number) -> Number:
    """The sRGB curve within 0.013, by one square root."""
    x = _clamp(ops, linear)
    return 1.13 * ops.sqrt(x) - 0.13 * x
