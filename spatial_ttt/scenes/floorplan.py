"""Floor plans: rooms as polygons, walls as edges, doors that make every room reachable, windows.

`make_plan(dice, num_rooms)` -> FloorPlan. Walls are `WALL` thick; each room's polygon lies half of
that inside the centre lines of its cell, so two facing edges lie exactly `WALL` apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.dice import Dice
from spatial_ttt.scenes.program import ROOM_KINDS, Cell, Rect, choose_functions, lay_out

WALL = 0.14
"""Thickness of every wall, metres."""
DOOR_TOP = 2.05
_SNAP = 0.02  # edges closer than this to WALL apart face each other
_TRIES = 400


class Edge(NamedTuple):
    """One straight wall of a room: runs along x (axis 0) or y (axis 1) at a fixed other coordinate."""

    room_id: int
    axis: int
    offset: float  # the other coordinate of the wall's inner face
    low: float
    high: float
    normal: tuple[int, int]  # into the room

    def point(self, along: float, inward: float = 0.0) -> tuple[float, float]:
        """The floor point this far along the axis and this far into the room."""
        x, y = (along, self.offset) if self.axis == 0 else (self.offset, along)
        return (x + inward * self.normal[0], y + inward * self.normal[1])

    def strip(self, low: float, high: float, depth: float) -> Rect:
        """The floor rectangle along the wall between two positions, `depth` into the room."""
        xa, ya = self.point(low)
        xb, yb = self.point(high, depth)
        if xb < xa:
            xa, xb = xb, xa
        if yb < ya:
            ya, yb = yb, ya
        return Rect(xa, ya, xb, yb)


class PlanRoom(NamedTuple):
    """A room: inner bounding rectangle, the inner corner that is not part of it, outline, walls."""

    room_id: int
    function: str
    bounds: Rect
    notch: Rect | None
    polygon: tuple[tuple[float, float], ...]  # counter-clockwise
    edges: tuple[Edge, ...]

    @property
    def area(self) -> float:
        """Square metres of floor."""
        return self.bounds.area - (self.notch.area if self.notch else 0.0)


class PlanOpening(NamedTuple):
    """A door or window. `edges` are the wall faces it goes through: two between rooms, else one."""

    kind: str  # "door" | "window"
    edges: tuple[Edge, ...]
    low: float  # along the wall
    high: float
    bottom: float
    top: float
    leaf: str  # "open" (a leaf stands into edges[0]'s room), "closed", "none"
    hinge: int  # -1: the leaf turns about the low end, 1: about the high end

    @property
    def rooms(self) -> tuple[int, ...]:
        """The rooms it joins; one when it leads outside."""
        return tuple(edge.room_id for edge in self.edges)

    def segment(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Its two ends on the floor plan, in the middle of the wall."""
        edge = self.edges[0]
        return edge.point(self.low, -WALL / 2), edge.point(self.high, -WALL / 2)


@dataclass(frozen=True, slots=True)
class FloorPlan:
    """Rooms, openings and the height of the ceiling (m)."""

    rooms: tuple[PlanRoom, ...]
    openings: tuple[PlanOpening, ...]
    height: float


class _Contact(NamedTuple):
    """Two edges of different rooms with the wall between them, and how far they overlap."""

    a: Edge
    b: Edge
    low: float
    high: float


def make_plan(dice: Dice, num_rooms: int, functions: tuple[str, ...] | None = None) -> FloorPlan:
    """A plan in which doors lead from the first room to every other."""
    names = list(functions) if functions else choose_functions(dice, num_rooms)
    for name in names:
        if name not in ROOM_KINDS:
            raise SceneError(f"no room function {name!r}; choose from {', '.join(ROOM_KINDS)}")
    for attempt in range(_TRIES):
        if functions is None and attempt % 25 == 24:
            names = choose_functions(dice, num_rooms)
        cells = lay_out(dice, names, WALL)
        if cells is None:
            continue
        rooms = tuple(_room(index, cell) for index, cell in enumerate(cells))
        contacts = _contacts(rooms)
        doors = _doors(dice, rooms, contacts)
        if doors is None:
            continue
        entrance = _entrance(dice, rooms, contacts, doors)
        if entrance is None:
            continue
        doors = _free_leaves([*doors, entrance])
        windows = _windows(dice, rooms, contacts, doors)
        return FloorPlan(rooms, (*doors, *windows), dice.uniform(2.4, 2.8))
    raise SceneError(f"no floor plan found for {', '.join(names)}; ask for other rooms")


def _room(index: int, cell: Cell) -> PlanRoom:
    """Inset a cell by half a wall; the notch grows by the same on its inner sides."""
    half, rect, notch = WALL / 2.0, cell.rect, cell.notch
    inner = Rect(
        *(round(v, 4) for v in (rect.x0 + half, rect.y0 + half, rect.x1 - half, rect.y1 - half))
    )
    x0, y0, x1, y1 = inner
    outline: tuple[tuple[float, float], ...]
    if notch is None:
        outline = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
        cut = None
    else:
        cut = Rect(
            x0 if notch.x0 == rect.x0 else round(notch.x0 - half, 4),
            y0 if notch.y0 == rect.y0 else round(notch.y0 - half, 4),
            x1 if notch.x1 == rect.x1 else round(notch.x1 + half, 4),
            y1 if notch.y1 == rect.y1 else round(notch.y1 + half, 4),
        )
        outline = _l_outline(inner, cut)
    edges = tuple(
        _edge(index, outline[i], outline[(i + 1) % len(outline)]) for i in range(len(outline))
    )
    return PlanRoom(index, cell.function, inner, cut, outline, edges)


def _l_outline(inner: Rect, cut: Rect) -> tuple[tuple[float, float], ...]:
    """The six corners left when a corner is cut out, counter-clockwise."""
    x0, y0, x1, y1 = inner
    if cut.x0 == x0 and cut.y0 == y0:
        return ((cut.x1, y0), (x1, y0), (x1, y1), (x0, y1), (x0, cut.y1), (cut.x1, cut.y1))
    if cut.x1 == x1 and cut.y0 == y0:
        return ((x0, y0), (cut.x0, y0), (cut.x0, cut.y1), (x1, cut.y1), (x1, y1), (x0, y1))
    if cut.x1 == x1:
        return ((x0, y0), (x1, y0), (x1, cut.y0), (cut.x0, cut.y0), (cut.x0, y1), (x0, y1))
    return ((x0, y0), (x1, y0), (x1, y1), (cut.x1, y1), (cut.x1, cut.y0), (x0, cut.y0))


def _edge(room_id: int, start: tuple[float, float], end: tuple[float, float]) -> Edge:
    """The edge from one corner to the next; counter-clockwise, so the room is on the left."""
    if start[1] == end[1]:
        normal = (0, 1) if end[0] > start[0] else (0, -1)
        return Edge(room_id, 0, start[1], min(start[0], end[0]), max(start[0], end[0]), normal)
    normal = (-1, 0) if end[1] > start[1] else (1, 0)
    return Edge(room_id, 1, start[0], min(start[1], end[1]), max(start[1], end[1]), normal)


def _contacts(rooms: tuple[PlanRoom, ...]) -> list[_Contact]:
    """Every stretch of wall between two rooms."""
    out = []
    edges = [edge for room in rooms for edge in room.edges]
    for i, a in enumerate(edges):
        for b in edges[i + 1 :]:
            if a.axis != b.axis or a.room_id == b.room_id or a.normal == b.normal:
                continue
            side = a.normal[1] if a.axis == 0 else a.normal[0]
            if abs((a.offset - b.offset) * side - WALL) > _SNAP:
                continue
            low, high = max(a.low, b.low), min(a.high, b.high)
            if high > low:
                out.append(_Contact(a, b, low, high))
    return out


def _doors(
    dice: Dice, rooms: tuple[PlanRoom, ...], contacts: list[_Contact]
) -> list[PlanOpening] | None:
    """A tree of doors from room 0, cheapest passages first; None when a room stays unreachable."""
    reached, doors = {rooms[0].room_id: 0.0}, []
    for _ in range(len(rooms) - 1):
        best: tuple[float, _Contact, int] | None = None
        for contact in contacts:
            if contact.high - contact.low < 1.25:
                continue
            for here, there in ((contact.a, contact.b), (contact.b, contact.a)):
                if here.room_id not in reached or there.room_id in reached:
                    continue
                cost = reached[here.room_id] + ROOM_KINDS[rooms[here.room_id].function].passage_cost
                cost -= 0.05 * (contact.high - contact.low) + 0.2 * dice.random()
                if best is None or cost < best[0]:
                    best = (cost, contact, there.room_id)
        if best is None:
            return None
        contact, new = best[1], best[2]
        old = contact.b.room_id if contact.a.room_id == new else contact.a.room_id
        reached[new] = reached[old] + ROOM_KINDS[rooms[old].function].passage_cost
        doors.append(_door(dice, rooms, contact, new))
    return doors


_OPEN_PLAN = ("living room", "dining room", "kitchen", "hallway")


def _door(dice: Dice, rooms: tuple[PlanRoom, ...], contact: _Contact, new: int) -> PlanOpening:
    """A door (leaf opens into the newly reached room) or a wide opening between day rooms."""
    first, second = (contact.a, contact.b) if contact.a.room_id == new else (contact.b, contact.a)
    length = contact.high - contact.low
    names = (rooms[contact.a.room_id].function, rooms[contact.b.room_id].function)
    if all(name in _OPEN_PLAN for name in names) and length > 1.8 and dice.chance(0.6):
        width = dice.uniform(1.1, min(2.0, length - 0.5))
        low = dice.uniform(contact.low + 0.15, contact.high - 0.15 - width)
        return PlanOpening(
            "door", (first, second), low, round(low + width, 4), 0.0, 2.15, "none", 1
        )
    width = dice.uniform(0.82, 0.95)
    slack = length - width - 0.3
    gap = 0.15 + (
        dice.uniform(0.0, min(slack, 0.35)) if dice.chance(0.7) else dice.uniform(0.0, slack)
    )
    near_low = dice.chance(0.5)
    low = round(contact.low + gap if near_low else contact.high - gap - width, 4)
    leaf = "open" if dice.chance(0.75) else "none"
    hinge = -1 if near_low else 1
    return PlanOpening(
        "door", (first, second), low, round(low + width, 4), 0.0, DOOR_TOP, leaf, hinge
    )


def _free_leaves(doors: list[PlanOpening]) -> list[PlanOpening]:
    """Take away leaves that would stand before another door of the same room."""
    out = []
    for door in doors:
        edge = door.edges[0]
        at = door.low if door.hinge < 0 else door.high
        leaf = edge.strip(at - 0.35, at + 0.35, door.high - door.low + 0.3)
        blocked = any(
            _meet(leaf, face.strip(other.low, other.high, 0.9))
            for other in doors
            for face in other.edges
            if other is not door and face.room_id == edge.room_id
        )
        out.append(door._replace(leaf="none") if blocked and door.leaf == "open" else door)
    return out


def _meet(a: Rect, b: Rect) -> bool:
    return a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1


def _outer(edge: Edge, contacts: list[_Contact]) -> list[tuple[float, float]]:
    """Stretches of an edge that face the outside."""
    taken = sorted((c.low - WALL, c.high + WALL) for c in contacts if edge in (c.a, c.b))
    free, at = [], edge.low
    for low, high in taken:
        if low - at > 0.3:
            free.append((at, low))
        at = max(at, high)
    if edge.high - at > 0.3:
        free.append((at, edge.high))
    return free


def _clear_of(opening: list[PlanOpening], edge: Edge, low: float, high: float) -> bool:
    return not any(edge in o.edges and o.low - 0.25 < high and low < o.high + 0.25 for o in opening)


def _entrance(
    dice: Dice, rooms: tuple[PlanRoom, ...], contacts: list[_Contact], doors: list[PlanOpening]
) -> PlanOpening | None:
    """The closed front door, in an outer wall of the hub or of another day room."""
    width = dice.uniform(0.88, 0.98)
    order = sorted(
        rooms, key=lambda room: (room.room_id != 0, ROOM_KINDS[room.function].passage_cost)
    )
    for room in order:
        choices = [
            (edge, low, high)
            for edge in room.edges
            for low, high in _outer(edge, contacts)
            if high - low > width + 0.3
        ]
        for edge, low, high in dice.shuffled(choices):
            at = dice.uniform(low + 0.12, min(high - width - 0.12, low + 0.6))
            if _clear_of(doors, edge, at, at + width):
                end = round(at + width, 4)
                return PlanOpening("door", (edge,), at, end, 0.0, DOOR_TOP, "closed", dice.sign())
    return None


_NUM_WINDOWS = {
    "living room": 3,
    "bedroom": 2,
    "kitchen": 1,
    "bathroom": 1,
    "dining room": 2,
    "hallway": 1,
}


def _windows(
    dice: Dice, rooms: tuple[PlanRoom, ...], contacts: list[_Contact], doors: list[PlanOpening]
) -> list[PlanOpening]:
    """Windows in outer walls: more and larger in day rooms, small and high in bathrooms."""
    windows: list[PlanOpening] = []
    for room in rooms:
        left = _NUM_WINDOWS.get(room.function, 1)
        edges = [(e, low, high) for e in room.edges for low, high in _outer(e, contacts)]
        for edge, low, high in dice.shuffled(edges):
            if left == 0 or high - low < 1.3:
                continue
            small = room.function in ("bathroom", "laundry room")
            width = (
                dice.uniform(0.55, 0.8) if small else dice.uniform(0.9, min(2.0, high - low - 0.5))
            )
            middle = (low + high) / 2.0 + dice.uniform(-0.25, 0.25) * (high - low - width - 0.4)
            start, end = round(middle - width / 2, 4), round(middle + width / 2, 4)
            bottom = dice.uniform(1.25, 1.4) if small else dice.uniform(0.92, 1.04)
            if room.function == "kitchen":
                bottom = dice.uniform(1.08, 1.16)
            if _clear_of(doors, edge, start, end):
                top = dice.uniform(1.98, 2.15)
                windows.append(PlanOpening("window", (edge,), start, end, bottom, top, "none", 1))
                left -= 1
    return windows
