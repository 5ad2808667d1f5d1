"""Tables, desks and other things with a top to put things on."""

from __future__ import annotations

from spatial_ttt.scenes.catalogue.mesh import Furniture, Mesh
from spatial_ttt.scenes.catalogue.palette import (
    CHROME,
    DARK_METAL,
    STEEL,
    exact,
    paint,
    toned,
    wood,
)
from spatial_ttt.scenes.dice import Dice


def _top_on_legs(dice: Dice, category: str, width: float, depth: float, height: float) -> Furniture:
    """A rectangular top with four legs, or a round one on a column when nearly square."""
    top, mesh = wood(dice), Mesh()
    legs = toned(top, 0.9) if dice.chance(0.7) else DARK_METAL
    thick = dice.uniform(0.03, 0.05)
    if width < depth * 1.15 and dice.chance(0.7):
        mesh.cylinder((0, 0, height - thick / 2), (width, width, thick), top)
        mesh.cylinder((0, 0, (height - thick) / 2), (0.09, 0.09, height - thick), legs)
        mesh.cylinder((0, 0, 0.015), (width * 0.55, width * 0.55, 0.03), legs)
        side = width * 0.62
        mesh.surface((0, 0, height), side, side)
        return mesh.finish(category, top.name)
    leg = dice.uniform(0.05, 0.08)
    mesh.legs((width - leg - 0.06, depth - leg - 0.06), height - thick, leg, legs)
    mesh.box((0, 0, height - thick / 2), (width, depth, thick), top)
    if dice.chance(0.5):
        mesh.box((0, 0, height - thick - 0.04), (width - 0.16, depth - 0.16, 0.08), legs)
    mesh.surface((0, 0, height), width - 0.06, depth - 0.06)
    return mesh.finish(category, top.name)


def table(dice: Dice) -> Furniture:
    """A dining table for two to six, 0.72 to 0.77 m high."""
    height = dice.uniform(0.72, 0.77)
    if dice.chance(0.3):
        width = dice.uniform(0.85, 1.2)
        return _top_on_legs(dice, "table", width, width, height)
    return _top_on_legs(dice, "table", dice.uniform(1.2, 1.9), dice.uniform(0.75, 0.95), height)


def coffee_table(dice: Dice) -> Furniture:
    """A low table before a sofa."""
    height = dice.uniform(0.36, 0.47)
    if dice.chance(0.3):
        width = dice.uniform(0.6, 0.9)
        return _top_on_legs(dice, "coffee table", width, width, height)
    return _top_on_legs(
        dice, "coffee table", dice.uniform(0.85, 1.25), dice.uniform(0.5, 0.65), height
    )


def side_table(dice: Dice) -> Furniture:
    """A small table beside a seat."""
    width = dice.uniform(0.38, 0.52)
    return _top_on_legs(dice, "side table", width, width, dice.uniform(0.48, 0.6))


def desk(dice: Dice) -> Furniture:
    """A desk: top, a drawer block on one side, legs or a panel on the other."""
    width, depth, height = (
        dice.uniform(1.1, 1.6),
        dice.uniform(0.58, 0.75),
        dice.uniform(0.72, 0.76),
    )
    top, mesh = wood(dice), Mesh()
    body = toned(top, 0.92)
    side = dice.sign()
    mesh.box((0, 0, height - 0.018), (width, depth, 0.036), top)
    block = dice.uniform(0.36, 0.42)
    x = side * (width / 2 - block / 2 - 0.02)
    mesh.box((x, 0.01, (height - 0.036) / 2), (block, depth - 0.06, height - 0.036), body)
    drawer = (height - 0.1) / 3
    for row in range(3):
        z = 0.05 + drawer * (row + 0.5)
        mesh.box((x, -depth / 2 + 0.035, z), (block - 0.03, 0.02, drawer - 0.02), toned(top, 1.1))
        mesh.box((x, -depth / 2 + 0.018, z), (0.1, 0.015, 0.015), STEEL)
    mesh.box(
        (-side * (width / 2 - 0.04), 0, (height - 0.036) / 2),
        (0.04, depth - 0.06, height - 0.036),
        body,
    )
    mesh.surface((0, 0, height), width - 0.06, depth - 0.06)
    return mesh.finish("desk", top.name)


def tv_stand(dice: Dice) -> Furniture:
    """A long low cabinet under a television."""
    width, depth, height = (
        dice.uniform(1.2, 1.8),
        dice.uniform(0.38, 0.45),
        dice.uniform(0.42, 0.55),
    )
    body, mesh = wood(dice), Mesh()
    front = toned(body, 1.14) if dice.chance(0.6) else paint(dice, "white")
    mesh.box((0, 0.01, 0.06 + (height - 0.06) / 2), (width, depth - 0.02, height - 0.06), body)
    mesh.box((0, 0.03, 0.03), (width - 0.1, depth - 0.1, 0.06), toned(body, 0.6))
    doors = 3
    for door in range(doors):
        x = width * ((door + 0.5) / doors - 0.5)
        if door == 1:
            size = (width / doors - 0.03, 0.015, height - 0.14)
            mesh.box((x, -depth / 2 + 0.013, 0.06 + (height - 0.06) / 2), size, toned(body, 0.3))
            continue
        size = (width / doors - 0.03, 0.02, height - 0.1)
        mesh.box((x, -depth / 2 + 0.012, 0.06 + (height - 0.06) / 2), size, front)
    mesh.surface((0, 0, height), width - 0.04, depth - 0.06)
    return mesh.finish("tv stand", body.name)


def piano(dice: Dice) -> Furniture:
    """An upright piano: body, keyboard shelf with white and black keys, pedals."""
    width, height = dice.uniform(1.44, 1.54), dice.uniform(1.08, 1.24)
    lacquer = exact("black") if dice.chance(0.6) else wood(dice)
    mesh = Mesh()
    mesh.box((0, 0.14, height / 2), (width, 0.32, height), lacquer)
    mesh.box((0, -0.13, 0.66), (width, 0.3, 0.12), lacquer)
    mesh.box((0, -0.17, 0.728), (width - 0.16, 0.15, 0.016), exact("white"))
    for group in range(7):
        x = (width - 0.2) * ((group + 0.5) / 7 - 0.5)
        mesh.box((x, -0.135, 0.744), (0.1, 0.08, 0.016), exact("black"))
    for side in (-1, 1):
        mesh.box((side * (width / 2 - 0.05), -0.22, 0.3), (0.07, 0.07, 0.6), lacquer)
    mesh.box((0, 0.0, 0.8), (width - 0.3, 0.02, 0.12), toned(lacquer, 1.3))
    mesh.cylinder((0, -0.06, 0.06), (0.18, 0.08, 0.02), CHROME)
    mesh.surface((0, 0.14, height), width - 0.1, 0.24)
    return mesh.finish("piano", lacquer.name)


def ironing_board(dice: Dice) -> Furniture:
    """A cloth-covered board on crossed metal legs."""
    from_floor = dice.uniform(0.82, 0.92)
    cloth, mesh = paint(dice, dice.pick(("blue", "gray", "green", "red"))), Mesh()
    mesh.box((0.08, 0, from_floor), (1.0, 0.36, 0.03), cloth)
    mesh.cylinder((-0.42, 0, from_floor), (0.44, 0.36, 0.03), cloth)
    for side in (-1, 1):
        mesh.box((side * 0.36, 0.1, from_floor / 2), (0.03, 0.03, from_floor), STEEL)
        mesh.box((side * 0.36, -0.1, from_floor / 2), (0.03, 0.03, from_floor), STEEL)
        mesh.box((side * 0.36, 0, 0.015), (0.04, 0.36, 0.03), DARK_METAL)
    return mesh.finish("ironing board", cloth.name)
