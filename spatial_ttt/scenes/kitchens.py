"""Kitchens: a run of units along the walls, cupboards above, a table where there is room."""

from __future__ import annotations

from spatial_ttt.scenes.catalogue import kitchen
from spatial_ttt.scenes.catalogue.mesh import Furniture
from spatial_ttt.scenes.catalogue.palette import Material, Paint, exact, paint, wood
from spatial_ttt.scenes.furnish import Furnisher
from spatial_ttt.scenes.habits import fill, in_corners, insist, pictures, scatter
from spatial_ttt.scenes.space import yaw_of


def _front(room: Furnisher) -> Paint:
    """What the doors of a kitchen look like."""
    if room.dice.chance(0.6):
        return paint(room.dice, room.dice.pick(("white", "gray", "beige", "navy", "green")))
    return wood(room.dice)


def _kitchen_units(room: Furnisher, front: Paint) -> list[Furniture]:
    """Fridge, worktops, sink, dishwasher, stove, in a usual order."""
    dice = room.dice
    top = exact(
        dice.pick(("gray", "black", "beige", "white")), Material.PLAIN, dice.uniform(0.6, 1.1)
    )
    units = [
        kitchen.sink_cabinet(dice, front, top),
        kitchen.kitchen_cabinet(dice, front, top, dice.pick((0.4, 0.6))),
        room.get("stove"),
        kitchen.kitchen_cabinet(dice, front, top, dice.pick((0.6, 0.8))),
    ]
    if dice.chance(0.6):
        units.insert(1, room.get("dishwasher"))
    units += [kitchen.kitchen_cabinet(dice, front, top, 0.6) for _ in range(dice.between(0, 2))]
    return [room.get("refrigerator"), *units]


def unit_run(room: Furnisher, units: list[Furniture]) -> list[int]:
    """Side by side along the walls, longest first, skipping doors and corners."""
    out: list[int] = []
    left = list(units)
    for edge in sorted(room.room.edges, key=lambda e: e.low - e.high)[:3]:
        at, length = 0.005, edge.high - edge.low
        is_from_high = room.dice.chance(0.5)
        while left and at + 0.4 < length:
            for unit in left[:3]:
                width, depth, _ = unit.size
                if at + width > length:
                    continue
                middle = at + width / 2
                along = edge.high - middle if is_from_high else edge.low + middle
                x, y = edge.point(along, depth / 2 + 0.005)
                index = room.put(unit, (x, y, 0.0), yaw_of(edge.normal))
                if index is not None:
                    room.keep_free(index, 0.65)
                    out.append(index)
                    left.remove(unit)
                    at += width + 0.0005
                    break
            else:
                at += 0.15
    return out


def kitchen_room(room: Furnisher) -> None:
    """Units along the walls, cupboards and a hood above, a table if there is room."""
    dice = room.dice
    front = _front(room)
    units = _kitchen_units(room, front)
    run = unit_run(room, units)
    for kind in ("stove", "refrigerator"):
        if not room.indices(kind):
            insist(room, kind, (0.4, 0.0, 0.0))
    for index in run:
        thing = room.placed[index]
        if thing.furniture.category == "stove":
            if dice.chance(0.7):
                room.on_wall("range hood", 1.62, index)
            continue
        if thing.furniture.category == "refrigerator":
            continue
        if thing.furniture.surfaces and thing.furniture.surfaces[0].z < 0.88:
            room.on(index, "kitchen sink", 0.0, (0.5, 0.5))
        if dice.chance(0.7):
            width = min(thing.furniture.size[0], 0.8)
            room.on_wall(kitchen.wall_cabinet(dice, front, width), 1.5, index)
    if room.room.area > 10.5 and dice.chance(0.75):
        table = room.in_middle("table", 0.5)
        if table is not None:
            room.around(table, dice.weighted((("chair", 4.0), ("stool", 1.0))), dice.pick((2, 4)))
    in_corners(room, (("trash can", 0.75), ("plant", 0.2), ("basket", 0.15)))
    fill(room, ("cabinet", "plant", "stool"), 0.24)
    scatter(
        room,
        ("cabinet", "dishwasher"),
        (
            ("microwave", 0.7),
            ("kettle", 0.7),
            ("toaster", 0.45),
            ("pot", 0.4),
            ("bowl", 0.35),
            ("cup", 0.4),
            ("small plant", 0.2),
        ),
    )
    scatter(room, ("table",), (("bowl", 0.4), ("cup", 0.4), ("vase", 0.3)))
    if dice.chance(0.4):
        room.on_wall("clock", 1.75)
    pictures(room, dice.between(0, 1))
