"""The building as boxes: wall panels with holes, floors, ceilings, door frames and leaves, panes.

Every wall has two faces a wall's thickness apart; each room owns the half towards it, so that rooms
can be painted in colours of their own. All parts carry object id 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from spatial_ttt.scenes.catalogue.mesh import UPRIGHT, Solid
from spatial_ttt.scenes.catalogue.palette import (
    STEEL,
    WHITE,
    Material,
    Paint,
    exact,
    paint,
    toned,
    wood,
)
from spatial_ttt.scenes.dice import Dice
from spatial_ttt.scenes.floorplan import WALL, Edge, FloorPlan, PlanOpening, PlanRoom
from spatial_ttt.scenes.program import Rect
from spatial_ttt.scenes.scene import PartKind
from spatial_ttt.scenes.space import SILL

_SLAB = 0.1
_HAIR = 0.0015  # m; below what counts as overlapping
_FRAME = 0.06
_WALL_TONES = (
    ((0.80, 0.78, 0.73), 4.0), ((0.74, 0.69, 0.58), 2.0), ((0.55, 0.62, 0.66), 1.5),
    ((0.52, 0.60, 0.50), 1.0), ((0.70, 0.55, 0.45), 1.0), ((0.42, 0.48, 0.58), 0.8),
    ((0.72, 0.60, 0.30), 0.6), ((0.62, 0.45, 0.45), 0.6),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finish:
    """How one room is painted."""

    wall: Paint
    floor: Paint


def _finish(dice: Dice, function: str) -> Finish:
    """Tiles in wet rooms, planks or carpet elsewhere."""
    tone = dice.weighted(_WALL_TONES)
    gain = dice.uniform(0.9, 1.08)
    wall = Paint("white", (tone[0] * gain, tone[1] * gain, tone[2] * gain), Material.WALL)
    if function in ("bathroom", "laundry room", "kitchen"):
        name = dice.pick(("white", "beige", "gray", "light blue"))
        if function == "bathroom":
            wall = exact(dice.pick(("white", "light blue", "beige")), Material.TILES, 0.95)
        if function != "kitchen" or dice.chance(0.6):
            return Finish(wall, paint(dice, name, Material.TILES))
    if function in ("bedroom", "children's room", "office") and dice.chance(0.3):
        return Finish(
            wall, paint(dice, dice.pick(("beige", "gray", "light blue")), Material.CARPET)
        )
    return Finish(
        wall,
        paint(dice, dice.pick(("brown", "light brown", "light brown", "beige")), Material.WOOD),
    )


def box_between(
    low: tuple[float, float, float], high: tuple[float, float, float], look: Paint
) -> Solid:
    """A box from its lowest to its highest corner."""
    center = tuple((a + b) / 2.0 for a, b in zip(low, high, strict=True))
    half = tuple((b - a) / 2.0 for a, b in zip(low, high, strict=True))
    return Solid(
        PartKind.BOX, (center[0], center[1], center[2]), (half[0], half[1], half[2]), UPRIGHT, look
    )


def _slab(rect: Rect, bottom: float, top: float, look: Paint) -> Solid:
    return box_between((rect.x0, rect.y0, bottom), (rect.x1, rect.y1, top), look)


def build(dice: Dice, plan: FloorPlan) -> list[Solid]:
    """All solids of the building in world coordinates."""
    solids: list[Solid] = []
    trim = exact("white", Material.PLAIN, 0.95) if dice.chance(0.7) else wood(dice)
    for room in plan.rooms:
        look = _finish(dice, room.function)
        solids += _floor_and_ceiling(room, look, plan)
        for edge in room.edges:
            holes = sorted((o for o in plan.openings if edge in o.edges), key=lambda o: o.low)
            solids += _panels(room, edge, holes, plan.height, look.wall)
    for opening in plan.openings:
        solids += _window(opening, trim) if opening.kind == "window" else _door(dice, opening, trim)
    return solids


def _floor_and_ceiling(room: PlanRoom, look: Finish, plan: FloorPlan) -> list[Solid]:
    """Slabs out to the middle of the walls.

    An L-shaped room's slabs also run through the corner that belongs to its neighbour, so that they
    show no seam; the neighbour's own lie a hair before them.
    """
    half, bounds = WALL / 2.0, room.bounds
    rect = Rect(bounds.x0 - half, bounds.y0 - half, bounds.x1 + half, bounds.y1 + half)
    is_carved = any(
        other.notch is not None and _is_within(bounds, other.notch)
        for other in plan.rooms
        if other is not room
    )
    rise = _HAIR if is_carved else 0.0
    ceiling = toned(WHITE, 0.9, Material.WALL)
    height = plan.height
    return [
        _slab(rect, -_SLAB, rise, look.floor),
        _slab(rect, height - rise, height + _SLAB, ceiling),
    ]


def _is_within(inner: Rect, outer: Rect) -> bool:
    return (
        outer.x0 - 1e-6 <= inner.x0
        and inner.x1 <= outer.x1 + 1e-6
        and outer.y0 - 1e-6 <= inner.y0
        and inner.y1 <= outer.y1 + 1e-6
    )


def _panels(
    room: PlanRoom, edge: Edge, holes: list[PlanOpening], height: float, look: Paint
) -> list[Solid]:
    """The room's half of one wall, cut around its doors and windows."""
    half = WALL / 2.0
    low, high = edge.low, edge.high
    for corner in (edge.low, edge.high):
        # Walls meet in the middle at outer corners; at the inner corner of an L they stop short.
        x, y = edge.point(corner)
        cut = room.notch
        inner = cut is not None and x in (cut.x0, cut.x1) and y in (cut.y0, cut.y1)
        is_reflex = (
            inner and room.bounds.x0 < x < room.bounds.x1 and room.bounds.y0 < y < room.bounds.y1
        )
        reach = -0.002 if is_reflex else half
        low, high = (low - reach, high) if corner == edge.low else (low, high + reach)
    spans: list[tuple[float, float, float, float]] = []
    at = low
    for hole in holes:
        spans.append((at, hole.low, 0.0, height))
        spans.append((hole.low, hole.high, hole.top, height))
        if hole.bottom > 0.0:
            spans.append((hole.low, hole.high, 0.0, hole.bottom))
        at = hole.high
    spans.append((at, high, 0.0, height))
    out = []
    for start, end, bottom, top in spans:
        if end - start > 1e-6:
            out.append(_slab(edge.strip(start, end, -half), bottom, top, look))
    return out


def _across(edge: Edge, opening: PlanOpening) -> tuple[float, float]:
    """How far an opening's hole reaches from the edge's face, along the outward normal."""
    return (0.0, WALL if len(opening.edges) == 2 else WALL / 2.0)


def _piece(
    edge: Edge,
    span: tuple[float, float],
    depth: tuple[float, float],
    rise: tuple[float, float],
    look: Paint,
) -> Solid:
    """A box along a wall: from-to along it, from-to outward from the face, from-to in height."""
    xa, ya = edge.point(span[0], -depth[0])
    xb, yb = edge.point(span[1], -depth[1])
    low = (min(xa, xb), min(ya, yb), rise[0])
    return box_between(low, (max(xa, xb), max(ya, yb), rise[1]), look)


def _window(opening: PlanOpening, trim: Paint) -> list[Solid]:
    """A bright pane, a frame's sill and head, one mullion."""
    edge, low, high = opening.edges[0], opening.low, opening.high
    pane = Paint("light blue", (0.75, 0.86, 1.0), Material.GLASS)
    middle = (low + high) / 2.0
    bottom, top = opening.bottom, opening.top
    return [
        _piece(edge, (low, high), (0.055, 0.07), (bottom, top), pane),
        _piece(
            edge, (low - 0.04, high + 0.04), (-SILL, 0.05), (bottom - 0.03, bottom + 0.012), trim
        ),
        _piece(edge, (low, high), (0.03, 0.056), (top - 0.05, top), trim),
        _piece(edge, (middle - 0.025, middle + 0.025), (0.03, 0.056), (bottom, top), trim),
    ]


def _door(dice: Dice, opening: PlanOpening, trim: Paint) -> list[Solid]:
    """Casing around the hole, and the leaf with its handle where there is one."""
    edge, low, high, top = opening.edges[0], opening.low, opening.high, opening.top
    near, far = _across(edge, opening)
    depth = (near - 0.015, far + (0.015 if len(opening.edges) == 2 else 0.0))
    out = [
        _piece(edge, (low - _FRAME, low + 0.012), depth, (0.0, top + _FRAME), trim),
        _piece(edge, (high - 0.012, high + _FRAME), depth, (0.0, top + _FRAME), trim),
        _piece(edge, (low + 0.012, high - 0.012), depth, (top - 0.012, top + _FRAME), trim),
    ]
    if opening.leaf == "none":
        return out
    look = wood(dice) if dice.chance(0.6) else exact("white", gain=0.95)
    if opening.leaf == "closed":
        out.append(
            _piece(edge, (low + 0.012, high - 0.012), (0.015, 0.06), (0.0, top - 0.012), look)
        )
        knob = high - 0.08 if opening.hinge < 0 else low + 0.08
        out.append(_piece(edge, (knob - 0.05, knob + 0.05), (-0.03, 0.0), (1.0, 1.03), STEEL))
        return out
    jamb = low + 0.012 if opening.hinge < 0 else high - 0.012
    thick = 0.04 if opening.hinge < 0 else -0.04
    width = high - low - 0.03
    out.append(
        _piece(edge, (jamb, jamb + thick), (-0.02 - width, -0.02), (0.01, top - 0.015), look)
    )
    inner = jamb + thick * 1.5
    handle = (min(jamb - thick * 0.5, inner), max(jamb - thick * 0.5, inner))
    out.append(_piece(edge, handle, (0.06 - width, 0.14 - width), (1.0, 1.03), STEEL))
    return out
