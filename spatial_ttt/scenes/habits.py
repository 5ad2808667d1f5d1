"""Habits of furnishing that several rooms share: windows, fillers, small things, desks, pictures."""

from __future__ import annotations

from collections.abc import Sequence

from spatial_ttt.scenes.catalogue import bedroom
from spatial_ttt.scenes.floorplan import PlanOpening
from spatial_ttt.scenes.furnish import PI, Furnisher
from spatial_ttt.scenes.space import FLOOR, WALL_SIDE, yaw_of

Share = tuple[str, float]
"""A kind and how likely it is there."""


_BARE = ("bathroom", "kitchen", "laundry room")


def _windows(room: Furnisher) -> list[PlanOpening]:
    """Windows that are dressed; wet rooms' stay bare."""
    if room.room.function in _BARE:
        return []
    return [opening for opening in room.space.openings if opening.kind == "window"]


def hang_curtains(room: Furnisher) -> None:
    """Curtains of one cloth, long or short."""
    cloth = bedroom.drapery(room.dice)
    for opening in _windows(room):
        if room.dice.chance(0.25):
            continue
        is_long = room.room.function == "living room" and room.dice.chance(0.3)
        bottom = 0.03 if is_long else opening.bottom - 0.06
        width, middle = opening.high - opening.low, (opening.low + opening.high) / 2
        drapes = bedroom.curtain(room.dice, width, opening.top + 0.14 - bottom, cloth)
        edge = opening.edges[0]
        x, y = edge.point(middle, drapes.size[1] / 2 + 0.035)
        room.put(drapes, (x, y, bottom), yaw_of(edge.normal), WALL_SIDE)


def set_radiators(room: Furnisher) -> None:
    """Radiators under windows, where furniture left the wall free."""
    for opening in _windows(room):
        heater = room.get("radiator")
        if room.dice.chance(0.55) and heater.size[2] < opening.bottom - 0.12:
            edge = opening.edges[0]
            x, y = edge.point((opening.low + opening.high) / 2, heater.size[1] / 2 + 0.005)
            room.put(heater, (x, y, 0.0), yaw_of(edge.normal), FLOOR)


def scatter(room: Furnisher, hosts: Sequence[str], things: Sequence[Share]) -> None:
    """Each small thing, as likely as its share, on one of the host categories."""
    spots = [i for host in hosts for i in room.indices(host)]
    if not spots:
        return
    for kind, probability in things:
        if room.dice.chance(probability * room.plenty):
            for spot in room.dice.shuffled(spots)[:2]:
                if room.on(spot, kind) is not None:
                    break


def along_walls(room: Furnisher, things: Sequence[Share], front: float = 0.0) -> None:
    """Each piece, as likely as its share, at some wall."""
    for kind, probability in things:
        if room.dice.chance(probability):
            room.against_wall(kind, front=front)


def in_corners(room: Furnisher, things: Sequence[Share]) -> None:
    """Each piece, as likely as its share, in a corner."""
    for kind, probability in things:
        if room.dice.chance(probability):
            room.against_wall(kind, where="corner")


def fill(room: Furnisher, kinds: Sequence[str], share: float) -> None:
    """More of these along the walls until about this share of the floor is taken."""
    for kind in room.dice.shuffled(kinds):
        if room.covered() > share * room.plenty:
            return
        room.against_wall(kind, front=0.3)


def insist(room: Furnisher, kind: str, fronts: Sequence[float], keep: bool = True) -> int | None:
    """At a wall, asking for less and less free floor before it; another instance each time."""
    for front in fronts:
        where = "inner" if kind == "bed" else "any"
        index = room.against_wall(kind, front=front, keep=keep, where=where)
        if index is not None:
            return index
    return None


def pictures(room: Furnisher, number: int, above: Sequence[int] = ()) -> None:
    """Pictures at eye height, first over the given things."""
    for index in above:
        height = room.placed[index].furniture.size[2]
        if room.dice.chance(0.7) and height < 1.3:
            room.on_wall("picture", max(height + 0.25, 1.3), index)
    for _ in range(number):
        room.on_wall("picture", room.dice.uniform(1.25, 1.5))


def desk_place(room: Furnisher) -> None:
    """A desk at a wall with what belongs to it."""
    desk = room.against_wall("desk", front=0.75, keep=False)
    if desk is not None:
        outfit_desk(room, desk)


def outfit_desk(room: Furnisher, desk: int) -> None:
    """A chair before a desk, a computer and small things on it."""
    dice = room.dice
    chair = room.get("office chair" if dice.chance(0.7) else "chair")
    room.before(desk, chair, dice.uniform(0.03, 0.15), PI)
    if dice.chance(0.55):
        monitor = room.on(desk, "monitor", 0.0, (dice.uniform(0.35, 0.65), 0.85))
        if monitor is not None:
            room.on(desk, "keyboard", 0.05, (0.5, 0.1))
    else:
        room.on(desk, "laptop", 0.15, (0.5, 0.4))
    for kind, probability in (("lamp", 0.4), ("books", 0.45), ("cup", 0.4), ("small plant", 0.2)):
        if dice.chance(probability):
            room.on(desk, kind)


def make_pair(room: Furnisher, anchor: int, kind: str) -> list[int]:
    """Two alike on both sides where they fit."""
    piece = room.get(kind)
    both = [room.beside(anchor, piece, 0.05, (side,)) for side in (-1, 1)]
    return [index for index in both if index is not None]
