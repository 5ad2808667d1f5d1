"""Which rooms a home has and how large they are, and how they are laid out in a rectangle.

`choose_functions` -> `lay_out` -> cells: rectangles of wall centre lines, some with a corner cut out
for a smaller neighbour (so that rooms are L-shaped at times).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.dice import Dice

MAX_ROOMS = 8


class Rect(NamedTuple):
    """An upright rectangle on the floor plan, metres."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        """Length along x."""
        return self.x1 - self.x0

    @property
    def depth(self) -> float:
        """Length along y."""
        return self.y1 - self.y0

    @property
    def area(self) -> float:
        """Square metres."""
        return self.width * self.depth


class Cell(NamedTuple):
    """A room between wall centre lines; `notch` is the corner that belongs to someone else."""

    function: str
    rect: Rect
    notch: Rect | None = None


@dataclass(frozen=True, slots=True)
class RoomKind:
    """Usual floor area in m2, least inner width in m, and how readily other rooms open from it."""

    area: tuple[float, float]
    min_width: float
    passage_cost: float  # 0: a hall; large: nobody walks through it


ROOM_KINDS: dict[str, RoomKind] = {
    "living room": RoomKind((17.0, 34.0), 3.2, 1.0),
    "bedroom": RoomKind((10.5, 19.0), 2.75, 6.0),
    "kitchen": RoomKind((8.5, 16.0), 2.3, 3.0),
    "bathroom": RoomKind((4.8, 9.0), 1.9, 9.0),
    "office": RoomKind((8.0, 14.0), 2.3, 5.0),
    "dining room": RoomKind((10.0, 18.0), 2.8, 2.0),
    "hallway": RoomKind((6.0, 11.0), 1.35, 0.0),
    "children's room": RoomKind((9.5, 15.0), 2.6, 6.0),
    "laundry room": RoomKind((4.8, 7.5), 1.8, 8.0),
    "music room": RoomKind((10.0, 16.0), 2.8, 5.0),
}
FUNCTIONS = tuple(ROOM_KINDS)

_SINGLE = (
    ("living room", 4.0), ("bedroom", 4.0), ("kitchen", 3.0), ("bathroom", 2.0), ("office", 2.0),
    ("dining room", 1.5), ("children's room", 1.5), ("music room", 0.7), ("laundry room", 0.7),
)  # fmt: skip
_EXTRA = (
    ("bedroom", 2.5), ("office", 2.5), ("dining room", 2.5), ("children's room", 2.0),
    ("bathroom", 1.5), ("laundry room", 1.0), ("music room", 0.6),
)  # fmt: skip


def choose_functions(dice: Dice, num_rooms: int) -> list[str]:
    """A plausible mix of rooms; the first is the hub that the entrance opens into."""
    if not 1 <= num_rooms <= MAX_ROOMS:
        raise SceneError(f"num_rooms must be 1 to {MAX_ROOMS}, got {num_rooms}")
    if num_rooms == 1:
        return [dice.weighted(_SINGLE)]
    if num_rooms == 2:
        return [
            "living room",
            dice.pick(("bedroom", "kitchen", "bathroom", "dining room", "office")),
        ]
    core = ["living room", "kitchen", "bedroom", "bathroom"]
    rooms = core if num_rooms >= 4 else ["living room", *dice.shuffled(core[1:])[:2]]
    if num_rooms >= 5 and dice.chance(0.7):
        rooms = ["hallway", *rooms]
    counts = {name: rooms.count(name) for name in FUNCTIONS}
    limits = {"bedroom": 3, "bathroom": 2, "office": 2, "children's room": 2}
    while len(rooms) < num_rooms:
        extra = dice.weighted(_EXTRA)
        if counts[extra] < limits.get(extra, 1):
            counts[extra] += 1
            rooms.append(extra)
    return rooms


def lay_out(dice: Dice, functions: list[str], wall: float) -> list[Cell] | None:
    """Cells that tile a rectangle (None when a room came out too thin: roll again)."""
    areas = [(name, dice.uniform(*ROOM_KINDS[name].area)) for name in functions]
    total = sum(area for _, area in areas)
    has_corridor = functions[0] == "hallway" and len(functions) >= 4
    # Rooms stand in two rows along a corridor: the more rooms, the longer the house.
    squarest = 0.17 * len(functions) - 0.15 if has_corridor else 1.0
    aspect = dice.uniform(squarest, 1.6 * squarest)
    width = round((total * aspect) ** 0.5, 3)
    house = Rect(0.0, 0.0, width, round(total / width, 3))
    if has_corridor:
        cells = _along_corridor(dice, areas, house)
    else:
        cells = _split(dice, [areas[0], *dice.shuffled(areas[1:])], house)
    cells.sort(key=lambda cell: cell.function != functions[0])  # the hub first; stable
    return None if any(_is_too_thin(cell, wall) for cell in cells) else cells


def _is_too_thin(cell: Cell, wall: float) -> bool:
    """Whether a room would be narrower, longer or more bent than people build."""
    least = ROOM_KINDS[cell.function].min_width + wall
    rect, notch = cell.rect, cell.notch
    short, long = min(rect.width, rect.depth), max(rect.width, rect.depth)
    if short < least or (notch and min(rect.width - notch.width, rect.depth - notch.depth) < 1.7):
        return True
    return cell.function != "hallway" and (long > 11.0 or long > 2.5 * short)


def _along_corridor(dice: Dice, areas: list[tuple[str, float]], house: Rect) -> list[Cell]:
    """A corridor through the house with rooms on both sides."""
    corridor = dice.uniform(1.5, 1.95)
    others = dice.shuffled(areas[1:])
    total = sum(area for _, area in others)
    low: list[tuple[str, float]] = []
    high: list[tuple[str, float]] = []
    for item in sorted(others, key=lambda pair: -pair[1]):
        side = low if sum(a for _, a in low) <= sum(a for _, a in high) else high
        side.append(item)
    share = sum(area for _, area in low) / total
    y_low = round(house.y0 + (house.depth - corridor) * share, 3)
    hall = Rect(house.x0, y_low, house.x1, round(y_low + corridor, 3))
    cells = [Cell(areas[0][0], hall)]
    cells += _row(dice.shuffled(low), Rect(house.x0, house.y0, house.x1, hall.y0))
    cells += _row(dice.shuffled(high), Rect(house.x0, hall.y1, house.x1, house.y1))
    return cells


def _least(function: str) -> float:
    """The least distance of a room's wall centre lines, with a little to spare."""
    return ROOM_KINDS[function].min_width + 0.2


def _row(areas: list[tuple[str, float]], rect: Rect) -> list[Cell]:
    """Rooms side by side along x, widths by area but none below its least."""
    total = sum(area for _, area in areas)
    widths = [max(rect.width * area / total, _least(name)) for name, area in areas]
    slack = [width - _least(name) for width, (name, _) in zip(widths, areas, strict=True)]
    excess = (sum(widths) - rect.width) / max(sum(slack), 1e-9)
    x, cells = rect.x0, []
    for index, (name, _) in enumerate(areas):
        last = index == len(areas) - 1
        x_next = rect.x1 if last else round(x + widths[index] - excess * slack[index], 3)
        cells.append(Cell(name, Rect(x, rect.y0, x_next, rect.y1)))
        x = x_next
    return cells


def _split(dice: Dice, areas: list[tuple[str, float]], rect: Rect) -> list[Cell]:
    """Cut a rectangle in two again and again, each side as large as its rooms need."""
    if len(areas) == 1:
        notch = _outer_notch(dice, areas[0][0], rect)
        return [Cell(areas[0][0], rect, notch)]
    if len(areas) == 2:
        big, small = sorted(areas, key=lambda pair: -pair[1])
        if big[1] > 1.9 * small[1] and dice.chance(0.55):
            return _carve(dice, big, small, rect)
    half = len(areas) // 2 if len(areas) < 4 or dice.chance(0.7) else len(areas) // 2 + 1
    first, second = areas[:half], areas[half:]
    share = sum(a for _, a in first) / sum(a for _, a in areas)
    cut_across = rect.width > rect.depth * dice.uniform(0.85, 1.15)
    length = rect.width if cut_across else rect.depth
    least = [max(_least(name) for name, _ in side) / length for side in (first, second)]
    share = min(max(share, least[0]), 1.0 - least[1]) if sum(least) < 1.0 else share
    if cut_across:
        x = round(rect.x0 + rect.width * share, 3)
        left, right = Rect(rect.x0, rect.y0, x, rect.y1), Rect(x, rect.y0, rect.x1, rect.y1)
    else:
        y = round(rect.y0 + rect.depth * share, 3)
        left, right = Rect(rect.x0, rect.y0, rect.x1, y), Rect(rect.x0, y, rect.x1, rect.y1)
    return _split(dice, first, left) + _split(dice, second, right)


def _corner(dice: Dice, rect: Rect, width: float, depth: float) -> Rect:
    """A rectangle of this size in one of the four corners."""
    x0 = rect.x0 if dice.chance(0.5) else round(rect.x1 - width, 3)
    y0 = rect.y0 if dice.chance(0.5) else round(rect.y1 - depth, 3)
    x1 = rect.x1 if x0 != rect.x0 else round(rect.x0 + width, 3)
    y1 = rect.y1 if y0 != rect.y0 else round(rect.y0 + depth, 3)
    return Rect(x0, y0, x1, y1)


def _carve(dice: Dice, big: tuple[str, float], small: tuple[str, float], rect: Rect) -> list[Cell]:
    """The small room takes a corner, the big one is L-shaped around it."""
    area = rect.area * small[1] / (big[1] + small[1])
    width = round((area * dice.uniform(0.8, 1.3) * rect.width / rect.depth) ** 0.5, 3)
    corner = _corner(dice, rect, width, round(area / width, 3))
    return [Cell(big[0], rect, corner), Cell(small[0], corner)]


def _outer_notch(dice: Dice, function: str, rect: Rect) -> Rect | None:
    """At times a large room has a corner outside the house."""
    if (
        function not in ("living room", "bedroom", "kitchen")
        or rect.area < 18.0
        or dice.chance(0.75)
    ):
        return None
    width, depth = dice.uniform(0.2, 0.35) * rect.width, dice.uniform(0.2, 0.35) * rect.depth
    return _corner(dice, rect, round(width, 3), round(depth, 3))
