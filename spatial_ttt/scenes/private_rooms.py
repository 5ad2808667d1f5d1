"""What goes into private rooms: bedroom, children's room, office, bathroom, laundry room."""

from __future__ import annotations

from spatial_ttt.scenes.catalogue import bedroom, electronics
from spatial_ttt.scenes.furnish import Furnisher
from spatial_ttt.scenes.habits import (
    along_walls,
    desk_place,
    fill,
    in_corners,
    insist,
    make_pair,
    pictures,
    scatter,
)


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
    if dice.chance(0.9):
        insist(room, "wardrobe", (0.6, 0.6, 0.45, 0.3))
    along_walls(room, (("dresser", 0.6), ("bookshelf", 0.15)), 0.55)
    if dice.chance(0.45):
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
    scatter(
        room,
        ("bed", "dresser", "desk"),
        (("teddy bear", 0.35), ("globe", 0.15), ("toy truck", 0.25)),
    )
    in_corners(room, (("football", 0.2), ("skateboard", 0.12), ("suitcase", 0.1)))
    scatter(room, ("nightstand", "dresser"), (("lamp", 0.6), ("books", 0.5)))


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
