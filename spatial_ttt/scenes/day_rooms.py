"""What goes into rooms of the day: living room, dining room, hallway, music room."""

from __future__ import annotations

from spatial_ttt.scenes.catalogue import electronics
from spatial_ttt.scenes.furnish import PI, Furnisher
from spatial_ttt.scenes.habits import along_walls, fill, in_corners, insist, pictures, scatter


def living_room(room: Furnisher) -> None:
    """A sofa, a television opposite, a low table and seats between."""
    dice, large = room.dice, room.room.area > 22.0
    sofa = _before_television(room) if dice.chance(0.6) else None
    if sofa is None:
        sofa = insist(room, "sofa", (1.2, 0.8, 0.4, 0.0), keep=False)
    if sofa is not None:
        if not room.indices("tv"):
            _television(room, sofa)
        _sitting_group(room, sofa)
    else:
        along_walls(room, (("armchair", 1.0), ("armchair", 0.7), ("tv stand", 0.5)))
        room.on_wall("wall tv", 0.95)
    if large and dice.chance(0.5) and not room.indices("table"):
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


def _before_television(room: Furnisher) -> int | None:
    """A television on its stand first, then a sofa at the wall opposite."""
    stand = room.against_wall("tv stand", front=1.5, keep=False, where="inner")
    if stand is None:
        return None
    screen = electronics.tv(room.dice, room.placed[stand].furniture.size[0])
    if room.on(stand, screen, 0.0, (0.5, 0.6)) is None:
        return None
    for _ in range(3):
        sofa = room.opposite(stand, "sofa")
        if sofa is not None:
            return sofa
    return None


def _television(room: Furnisher, sofa: int) -> None:
    """Opposite the sofa on a stand, else on any stand, else on a wall."""
    stand = room.opposite(sofa, "tv stand", 0.85)
    if stand is None and room.on_wall("wall tv", 0.95, facing=sofa) is not None:
        return
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


def dining_room(room: Furnisher) -> None:
    """A table with chairs in the middle, a sideboard."""
    dice = room.dice
    if dice.chance(0.4):
        room.in_middle("rug", 0.1, 3)
    table = None
    for margin in (0.65, 0.62, 0.55, 0.35):  # another table each time
        table = table if table is not None else room.in_middle("table", margin)
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
