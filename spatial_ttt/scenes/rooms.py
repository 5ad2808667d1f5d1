"""What goes into each kind of room, as people do it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from spatial_ttt.scenes.catalogue import bedroom, electronics, kitchen
from spatial_ttt.scenes.catalogue.mesh import Furniture
from spatial_ttt.scenes.catalogue.palette import Material, exact, paint, wood
from spatial_ttt.scenes.furnish import PI, Furnisher
from spatial_ttt.scenes.space import FLOOR, WALL_SIDE, yaw_of

Share = tuple[str, float]


def furnish_room(room: Furnisher) -> None:
    """Windows first, then what the room is for, then lights, pictures and small things."""
    function = room.room.function
    dress_windows(room)
    _RECIPES[function](room)
    room.on_ceiling("ceiling light")


def dress_windows(room: Furnisher) -> None:
    """Curtains, long or short, and radiators under windows."""
    function = room.room.function
    for opening in room.space.openings:
        if opening.kind != "window":
            continue
        edge = opening.edges[0]
        width, middle = opening.high - opening.low, (opening.low + opening.high) / 2
        if function in ("bathroom", "kitchen", "laundry room"):
            continue
        is_long = function == "living room" and room.dice.chance(0.6)
        if room.dice.chance(0.75):
            bottom = 0.03 if is_long else opening.bottom - 0.1
            drapes = bedroom.curtain(room.dice, width, opening.top + 0.14 - bottom)
            x, y = edge.point(middle, drapes.size[1] / 2 + 0.035)
            room.put(drapes, (x, y, bottom), yaw_of(edge.normal), WALL_SIDE)
        if room.dice.chance(0.45):
            heater = room.get("radiator")
            x, y = edge.point(middle, heater.size[1] / 2 + 0.005)
            if heater.size[2] < opening.bottom - 0.12:
                room.put(heater, (x, y, 0.0), yaw_of(edge.normal), FLOOR)


def scatter(room: Furnisher, hosts: Sequence[str], things: Sequence[Share]) -> None:
    """Each small thing, as likely as its share, on one of the host categories."""
    spots = [i for host in hosts for i in room.indices(host)]
    if not spots:
        return
    for kind, probability in things:
        if room.dice.chance(probability):
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
        if room.covered() > share:
            return
        room.against_wall(kind, front=0.3)


def pictures(room: Furnisher, number: int, above: Sequence[int] = ()) -> None:
    """Pictures at eye height, first over the given things."""
    for index in above:
        height = room.placed[index].furniture.size[2]
        if room.dice.chance(0.7) and height < 1.3:
            room.on_wall("picture", max(height + 0.25, 1.3), index)
    for _ in range(number):
        room.on_wall("picture", room.dice.uniform(1.25, 1.5))


def living_room(room: Furnisher) -> None:
    """A sofa, a television opposite, a low table and seats between."""
    dice, large = room.dice, room.room.area > 22.0
    sofa = insist(room, "sofa", (1.2, 0.8, 0.4, 0.0), keep=False)
    if sofa is not None:
        _television(room, sofa)
        _sitting_group(room, sofa)
    else:
        along_walls(room, (("armchair", 1.0), ("armchair", 0.7), ("tv stand", 0.5)))
        room.on_wall("wall tv", 0.95)
    if large and dice.chance(0.35) and not room.indices("table"):
        table = room.in_middle("table", 0.7)
        if table is not None:
            room.around(table, "chair", dice.pick((4, 4, 6)))
    if dice.chance(0.3):
        room.against_wall("fireplace", front=0.6)
    along_walls(
        room, (("bookshelf", 0.65), ("cabinet", 0.35), ("piano", 0.2 if large else 0.05)), 0.5
    )
    in_corners(
        room,
        (
            ("plant", 0.75),
            ("floor lamp", 0.45),
            ("plant", 0.25),
            ("speaker", 0.2),
            ("basket", 0.2),
            ("fan", 0.12),
        ),
    )
    more = ("bookshelf", "cabinet", "armchair", "plant", "ottoman", "dresser", "floor lamp", "sofa")
    fill(room, more, 0.26)
    pictures(room, dice.between(0, 2), [sofa] if sofa is not None else [])
    if dice.chance(0.4):
        room.on_wall("clock", 1.7)
    scatter(
        room,
        ("coffee table", "side table", "tv stand"),
        (("books", 0.5), ("cup", 0.4), ("vase", 0.4), ("bowl", 0.3), ("laptop", 0.15)),
    )
    scatter(
        room,
        ("cabinet", "piano", "fireplace", "table"),
        (("vase", 0.5), ("lamp", 0.35), ("small plant", 0.4), ("books", 0.3)),
    )


def insist(room: Furnisher, kind: str, fronts: Sequence[float], keep: bool = True) -> int | None:
    """At a wall, asking for less and less free floor before it; another instance each time."""
    for front in fronts:
        where = "inner" if kind == "bed" else "any"
        index = room.against_wall(kind, front=front, keep=keep, where=where)
        if index is not None:
            return index
    return None


def _television(room: Furnisher, sofa: int) -> None:
    """Opposite the sofa on a stand, else on any stand, else on a wall."""
    stand = room.opposite(sofa, "tv stand")
    if stand is None:
        stand = room.against_wall("tv stand", front=0.6)
    if stand is not None:
        screen = electronics.tv(room.dice, room.placed[stand].furniture.size[0])
        if room.on(stand, screen, 0.0, (0.5, 0.6)) is not None:
            return
    room.on_wall("wall tv", 0.95)


def _sitting_group(room: Furnisher, sofa: int) -> None:
    """What stands around a sofa: rug, low table, armchairs, lamp or side table, cushions."""
    dice = room.dice
    gap = dice.uniform(0.32, 0.45)
    if dice.chance(0.6):
        room.before(sofa, "rug", 0.02)
    low = room.before(sofa, "coffee table", gap)
    if low is not None:
        for side in dice.shuffled((-1, 1))[: dice.weighted(((0, 1.0), (1, 2.0), (2, 1.0)))]:
            _armchair_at(room, low, side)
    if dice.chance(0.55):
        placed = room.beside(sofa, dice.pick(("side table", "floor lamp", "side table")))
        if (
            placed is not None
            and room.placed[placed].furniture.category == "side table"
            and dice.chance(0.6)
        ):
            room.on(placed, "lamp", 0.0)
    for share in (0.0, 1.0)[: dice.between(0, 2)]:
        room.on(sofa, "pillow", 0.3, (share, 0.5))


def _armchair_at(room: Furnisher, table: int, side: int) -> None:
    """An armchair at a low table's end, looking at it."""
    thing, chair = room.placed[table], room.get("armchair")
    dx = side * (thing.furniture.size[0] / 2 + chair.size[1] / 2 + 0.3)
    x, y = room._world(thing, dx, 0.0)
    room.put(chair, (x, y, 0.0), round(thing.yaw - side * PI / 2, 9))


def bedroom_room(room: Furnisher) -> None:
    """A bed with nightstands, a closet, a chest."""
    dice = room.dice
    bed = insist(room, "bed", (0.6, 0.6, 0.3))
    if bed is None:
        bed = insist(room, "single bed", (0.3, 0.0, 0.0))
    if bed is not None:
        stand = make_pair(room, bed, "nightstand")
        for index in stand:
            if dice.chance(0.75):
                room.on(index, "lamp", 0.0, (0.5, 0.8))
            elif dice.chance(0.6):
                room.on(index, "books")
        if dice.chance(0.45):
            room.before(bed, "rug", -0.6)
        if dice.chance(0.2):
            room.before(bed, "bench", 0.03)
    along_walls(room, (("wardrobe", 0.85),), 0.6)
    along_walls(room, (("dresser", 0.6), ("bookshelf", 0.15)), 0.55)
    if dice.chance(0.3):
        desk_place(room)
    in_corners(
        room,
        (
            ("plant", 0.35),
            ("armchair", 0.3),
            ("basket", 0.35),
            ("box", 0.2),
            ("backpack", 0.15),
            ("shoes", 0.25),
        ),
    )
    for dresser in room.indices("dresser"):
        if dice.chance(0.45):
            room.on_wall("mirror", 1.05, dresser)
        elif dice.chance(0.5):
            screen = electronics.tv(dice, room.placed[dresser].furniture.size[0])
            room.on(dresser, screen, 0.0, (0.5, 0.6))
    fill(room, ("dresser", "bookshelf", "armchair", "plant", "ottoman", "cabinet", "basket"), 0.34)
    pictures(room, dice.between(0, 1), [bed] if bed is not None else [])
    scatter(
        room,
        ("dresser", "desk"),
        (("vase", 0.3), ("books", 0.4), ("small plant", 0.3), ("lamp", 0.2)),
    )
    if bed is not None and dice.chance(0.25):
        room.on(bed, "pillow", 0.6)


def make_pair(room: Furnisher, anchor: int, kind: str) -> list[int]:
    """Two alike on both sides where they fit."""
    piece = room.get(kind)
    both = [room.beside(anchor, piece, 0.05, (side,)) for side in (-1, 1)]
    return [index for index in both if index is not None]


def childrens_room(room: Furnisher) -> None:
    """One or two single beds or a crib, toys' shelf, a small desk."""
    dice = room.dice
    bed = room.against_wall("single bed", front=0.4, where="corner")
    if bed is None:
        bed = insist(room, "single bed", (0.2, 0.0, 0.0))
    if bed is not None and dice.chance(0.35):
        room.against_wall("single bed", front=0.3)
    if dice.chance(0.25):
        room.against_wall("crib", front=0.4)
    if bed is not None and dice.chance(0.6):
        room.beside(bed, "nightstand", 0.05)
    if dice.chance(0.65):
        desk_place(room)
    along_walls(room, (("bookshelf", 0.6), ("wardrobe", 0.6), ("dresser", 0.3)), 0.5)
    room.in_middle("rug", 0.0) if dice.chance(0.6) else None
    in_corners(
        room, (("basket", 0.6), ("box", 0.4), ("backpack", 0.5), ("shoes", 0.3), ("plant", 0.15))
    )
    fill(room, ("bookshelf", "cabinet", "basket", "box", "dresser", "stool"), 0.36)
    pictures(room, dice.between(1, 2))
    scatter(room, ("nightstand", "dresser"), (("lamp", 0.6), ("books", 0.5)))


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


def office(room: Furnisher) -> None:
    """Desks, shelves, a printer."""
    dice = room.dice
    for _ in range(1 if room.room.area < 11.0 else dice.between(1, 2)):
        desk_place(room)
    along_walls(room, (("bookshelf", 0.9), ("cabinet", 0.5), ("bookshelf", 0.35)), 0.5)
    in_corners(
        room,
        (
            ("trash can", 0.6),
            ("plant", 0.5),
            ("floor lamp", 0.3),
            ("box", 0.4),
            ("armchair", 0.3),
            ("fan", 0.15),
        ),
    )
    fill(room, ("bookshelf", "cabinet", "plant", "box", "side table"), 0.28)
    scatter(room, ("cabinet",), (("printer", 0.6), ("books", 0.4), ("small plant", 0.3)))
    pictures(room, dice.between(0, 2))
    if dice.chance(0.4):
        room.on_wall("clock", 1.7)


def dining_room(room: Furnisher) -> None:
    """A table with chairs in the middle, a sideboard."""
    dice = room.dice
    if dice.chance(0.4):
        room.in_middle("rug", 0.1, 3)
    table = room.in_middle("table", 0.62)
    if table is None:
        table = room.in_middle("table", 0.35)
    if table is not None:
        room.around(table, "chair", dice.pick((4, 4, 6)))
        scatter(room, ("table",), (("vase", 0.5), ("bowl", 0.5), ("cup", 0.4)))
    along_walls(room, (("cabinet", 0.85), ("bookshelf", 0.15), ("piano", 0.1)), 0.4)
    in_corners(room, (("plant", 0.6), ("floor lamp", 0.3)))
    fill(room, ("cabinet", "plant", "bench", "floor lamp"), 0.26)
    scatter(room, ("cabinet",), (("vase", 0.5), ("lamp", 0.4), ("bowl", 0.3), ("books", 0.3)))
    pictures(room, dice.between(1, 3))
    if dice.chance(0.3):
        room.on_wall("clock", 1.7)


def _kitchen_units(room: Furnisher) -> list[Furniture]:
    """Fridge, worktops, sink, dishwasher, stove, in a usual order."""
    dice = room.dice
    front = (
        paint(dice, dice.pick(("white", "gray", "beige", "navy", "green")))
        if dice.chance(0.6)
        else wood(dice)
    )
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
    units = _kitchen_units(room)
    run = unit_run(room, units)
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
            look = (
                exact("white")
                if thing.furniture.color == "silver"
                else paint(dice, thing.furniture.color)
            )
            room.on_wall(
                kitchen.wall_cabinet(dice, look, min(thing.furniture.size[0], 0.8)), 1.5, index
            )
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


def bathroom(room: Furnisher) -> None:
    """Toilet, basin with a mirror, tub or shower, towels."""
    dice = room.dice
    tub = room.against_wall("bathtub", where="corner") if dice.chance(0.65) else None
    if tub is None:
        room.against_wall("shower", where="corner")
    toilet = insist(room, "toilet", (0.45, 0.45, 0.0))
    basin = insist(room, "sink", (0.45, 0.45, 0.0, 0.0))
    if basin is not None:
        width = room.placed[basin].furniture.size[0]
        mirror = bedroom.mirror(dice, min(width * 0.9, 0.8))
        room.on_wall(mirror, 1.15, basin)
    along_walls(room, (("washer", 0.4), ("cabinet", 0.25)), 0.4)
    in_corners(room, (("trash can", 0.5), ("basket", 0.4), ("small plant", 0.2)))
    if toilet is not None and dice.chance(0.6):
        room.on_wall("toilet paper", 0.65)
    for _ in range(dice.between(1, 2)):
        room.on_wall("towel", dice.uniform(0.85, 1.05))
    if tub is not None and dice.chance(0.7):
        room.before(tub, "bath mat", 0.05)


def hallway(room: Furnisher) -> None:
    """Narrow things along the walls: shoes, coats, a bench, a mirror."""
    dice = room.dice
    along_walls(room, (("shoe rack", 0.6), ("bench", 0.4), ("cabinet", 0.35)))
    in_corners(room, (("coat rack", 0.6), ("plant", 0.2), ("shoes", 0.4), ("basket", 0.15)))
    if dice.chance(0.6):
        room.on_wall("mirror", dice.uniform(0.7, 0.95))
    if dice.chance(0.3):
        room.in_middle("rug", 0.0, 4)
    pictures(room, dice.between(1, 3))
    scatter(room, ("cabinet", "bench"), (("vase", 0.4), ("backpack", 0.3), ("small plant", 0.3)))


def laundry_room(room: Furnisher) -> None:
    """Washers, a basin, shelves, baskets."""
    dice = room.dice
    washer = room.against_wall("washer", front=0.6)
    if washer is not None and dice.chance(0.5):
        room.beside(washer, "washer", 0.01)
    along_walls(room, (("sink", 0.6), ("cabinet", 0.5), ("shoe rack", 0.2)), 0.45)
    in_corners(room, (("basket", 0.8), ("box", 0.5), ("trash can", 0.4)))
    if dice.chance(0.4):
        room.in_middle("ironing board", 0.25)
    scatter(room, ("washer", "cabinet"), (("box", 0.5), ("basket", 0.3)))
    if dice.chance(0.5):
        room.on_wall("shelf", 1.4)


def music_room(room: Furnisher) -> None:
    """A piano with a stool, speakers, shelves, a seat."""
    dice = room.dice
    piano = room.against_wall("piano", front=0.7, keep=False)
    if piano is not None:
        room.before(piano, "stool", 0.12, PI)
    along_walls(room, (("bookshelf", 0.8), ("sofa", 0.6), ("cabinet", 0.3)), 0.4)
    in_corners(
        room,
        (("speaker", 0.8), ("speaker", 0.6), ("plant", 0.5), ("guitar", 0.7), ("floor lamp", 0.4)),
    )
    if dice.chance(0.5):
        room.in_middle("rug", 0.0)
    pictures(room, dice.between(1, 2))
    scatter(room, ("piano", "cabinet"), (("vase", 0.4), ("lamp", 0.4), ("books", 0.5)))


_RECIPES: dict[str, Callable[[Furnisher], None]] = {
    "living room": living_room,
    "bedroom": bedroom_room,
    "kitchen": kitchen_room,
    "bathroom": bathroom,
    "office": office,
    "dining room": dining_room,
    "hallway": hallway,
    "children's room": childrens_room,
    "laundry room": laundry_room,
    "music room": music_room,
}
