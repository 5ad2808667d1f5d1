"""Things to sit on. Sizes follow common furniture dimensions (seat height about 0.45 m)."""

from __future__ import annotations

from spatial_ttt.scenes.catalogue.mesh import ALONG_Y, Furniture, Mesh, tilted, yawed
from spatial_ttt.scenes.catalogue.palette import (
    BLACK,
    DARK_METAL,
    STEEL,
    Material,
    calm_fabric,
    fabric,
    paint,
    toned,
    vivid,
    wood,
)
from spatial_ttt.scenes.dice import Dice


def _cushioned(dice: Dice, category: str, width: float, num_seats: int) -> Furniture:
    """Sofa and armchair: base, arms, back, one seat and one back cushion per place."""
    depth, height = dice.uniform(0.82, 0.98), dice.uniform(0.74, 0.9)
    arm, arm_height = dice.uniform(0.12, 0.22), dice.uniform(0.55, 0.64)
    cloth = fabric(dice)
    soft = toned(cloth, 1.18)
    mesh = Mesh()
    leg, seat_top = 0.1, dice.uniform(0.41, 0.46)
    base_top = seat_top - 0.14
    inner = width - 2 * arm
    if dice.chance(0.4):
        mesh.legs((width - 0.14, depth - 0.14), leg, 0.05, wood(dice))
    else:
        mesh.box((0, 0, leg / 2), (width - 0.12, depth - 0.1, leg), BLACK)
    mesh.box((0, 0, (leg + base_top) / 2), (width, depth, base_top - leg), cloth)
    back = dice.uniform(0.16, 0.2)
    mesh.box(
        (0, depth / 2 - back / 2, (base_top + height) / 2), (inner, back, height - base_top), cloth
    )
    rounded = dice.chance(0.4)
    for side in (-1, 1):
        x = side * (width / 2 - arm / 2)
        mesh.box((x, 0, (base_top + arm_height) / 2), (arm, depth, arm_height - base_top), cloth)
        if rounded:
            mesh.cylinder((x, -0.004, arm_height), (arm, arm, depth), soft, ALONG_Y)
    place, seat_depth = inner / num_seats, depth - back
    for seat in range(num_seats):
        x = -inner / 2 + place * (seat + 0.5)
        y = -depth / 2 + seat_depth / 2
        mesh.box((x, y - 0.01, seat_top - 0.07), (place - 0.015, seat_depth - 0.02, 0.14), soft)
        tall = height - seat_top - 0.04
        mesh.box(
            (x, depth / 2 - back - 0.07, seat_top + tall / 2),
            (place - 0.03, 0.13, tall),
            toned(cloth, 1.08),
            tilted(0.12),
        )
    free = seat_depth - 0.2
    mesh.surface((0, -depth / 2 + free / 2, seat_top), inner, free, 0.8)
    return mesh.finish(category, cloth.name)


def sofa(dice: Dice) -> Furniture:
    """Two or three seats."""
    num_seats = dice.between(2, 3)
    return _cushioned(dice, "sofa", num_seats * dice.uniform(0.62, 0.72) + 0.34, num_seats)


def armchair(dice: Dice) -> Furniture:
    """One padded seat with arms."""
    return _cushioned(dice, "armchair", dice.uniform(0.78, 0.95), 1)


def chair(dice: Dice) -> Furniture:
    """A dining chair: four legs, seat, back of a panel, slats or rails."""
    width, depth = dice.uniform(0.4, 0.48), dice.uniform(0.42, 0.5)
    seat, height = dice.uniform(0.44, 0.47), dice.uniform(0.82, 0.98)
    frame = wood(dice) if dice.chance(0.75) else paint(dice, "black", Material.METAL)
    top = fabric(dice) if dice.chance(0.4) else toned(frame, 1.06)
    mesh = Mesh()
    thick = dice.uniform(0.035, 0.05)
    mesh.legs((width - thick, depth - thick), seat - 0.04, thick, frame)
    mesh.box((0, 0, seat - 0.02), (width, depth, 0.045), top)
    back_y = depth / 2 - 0.02
    style = dice.below(3)
    if style == 0:
        tall = (height - seat) * 0.62
        mesh.box((0, back_y, height - tall / 2), (width, 0.03, tall), top)
        for side in (-0.5, 0.5):
            x = side * (width - thick)
            mesh.box(
                (x, back_y, (seat + height - tall) / 2), (thick, thick, height - tall - seat), frame
            )
        return mesh.finish("chair", top.name)
    for side in (-0.5, 0.5):
        x = side * (width - thick)
        mesh.box((x, back_y, (seat + height) / 2), (thick, thick, height - seat), frame)
    rails = (0.92, 0.55) if style == 1 else (0.92,)
    for part in rails:
        z = seat + (height - seat) * part
        mesh.box((0, back_y, z), (width - thick, 0.022, 0.08), frame)
    if style == 2:
        for x in (-0.22, 0.0, 0.22):
            mesh.box((x * width, back_y, (seat + height) / 2), (0.03, 0.016, height - seat), frame)
    return mesh.finish("chair", frame.name)


def office_chair(dice: Dice) -> Furniture:
    """A swivel chair: five-armed star, column, seat, back, perhaps arms."""
    cloth = paint(dice, dice.pick(("black", "gray", "blue", "red", "white")), Material.FABRIC)
    seat, height = dice.uniform(0.46, 0.52), dice.uniform(0.95, 1.15)
    metal = STEEL if dice.chance(0.4) else DARK_METAL
    mesh = Mesh()
    for arm in range(3):
        mesh.box((0, 0, 0.06), (0.6, 0.05, 0.04), metal, yawed(arm * 1.0472))
    mesh.cylinder((0, 0, seat / 2), (0.06, 0.06, seat - 0.1), metal)
    mesh.box((0, 0, seat - 0.035), (0.5, 0.48, 0.08), cloth)
    mesh.box(
        (0, 0.24, (seat + 0.08 + height) / 2),
        (0.46, 0.06, height - seat - 0.08),
        cloth,
        tilted(0.08),
    )
    if dice.chance(0.6):
        for side in (-0.27, 0.27):
            mesh.box((side, 0.02, seat + 0.2), (0.05, 0.28, 0.03), BLACK)
            mesh.box((side, 0.08, seat + 0.08), (0.03, 0.05, 0.24), metal)
    return mesh.finish("chair", cloth.name)


def stool(dice: Dice) -> Furniture:
    """A round or square seat on legs, low or bar-high."""
    height, width = dice.pick((0.45, 0.48, 0.65, 0.72)), dice.uniform(0.3, 0.38)
    frame, mesh = wood(dice), Mesh()
    mesh.legs((width * 0.66, width * 0.66), height - 0.03, 0.035, frame)
    top = vivid(dice, Material.FABRIC) if dice.chance(0.3) else toned(frame, 1.1)
    if dice.chance(0.6):
        mesh.cylinder((0, 0, height - 0.02), (width, width, 0.04), top)
    else:
        mesh.box((0, 0, height - 0.02), (width, width, 0.04), top)
    if height > 0.6:
        for side in (-0.33, 0.33):
            mesh.box((0, side * width, 0.2), (width * 0.6, 0.025, 0.025), frame)
    mesh.surface((0, 0, height), width * 0.6, width * 0.6)
    return mesh.finish("stool", top.name)


def bench(dice: Dice) -> Furniture:
    """A long seat, with a cushion at times, for halls and bed ends."""
    width, depth, height = (
        dice.uniform(0.9, 1.4),
        dice.uniform(0.34, 0.42),
        dice.uniform(0.42, 0.48),
    )
    frame, mesh = wood(dice), Mesh()
    for side in (-1, 1):
        x = side * (width / 2 - 0.08)
        mesh.box((x, 0, (height - 0.04) / 2), (0.06, depth - 0.04, height - 0.04), frame)
    mesh.box((0, 0, height - 0.02), (width, depth, 0.04), frame)
    top, name = height, frame.name
    if dice.chance(0.5):
        cloth = fabric(dice)
        mesh.box((0, 0, height + 0.025), (width - 0.06, depth - 0.04, 0.05), cloth)
        top, name = height + 0.05, cloth.name
    mesh.surface((0, 0, top), width - 0.1, depth - 0.08)
    return mesh.finish("bench", name)


def ottoman(dice: Dice) -> Furniture:
    """A padded footstool, round or square."""
    width, height = dice.uniform(0.45, 0.65), dice.uniform(0.36, 0.44)
    cloth, mesh = fabric(dice), Mesh()
    mesh.legs((width * 0.6, width * 0.6), 0.08, 0.04, wood(dice))
    if dice.chance(0.5):
        mesh.cylinder((0, 0, 0.08 + (height - 0.08) / 2), (width, width, height - 0.08), cloth)
    else:
        mesh.box((0, 0, 0.08 + (height - 0.08) / 2), (width, width, height - 0.08), cloth)
    return mesh.finish("ottoman", cloth.name)


def pillow(dice: Dice) -> Furniture:
    """A cushion lying or leaning on a sofa or bed."""
    width = dice.uniform(0.38, 0.5)
    cloth, mesh = vivid(dice, Material.FABRIC) if dice.chance(0.6) else calm_fabric(dice), Mesh()
    mesh.ellipsoid((0, 0, 0), (width, width * 0.9, 0.16), cloth)
    mesh.box((0, 0, 0), (width * 0.94, width * 0.84, 0.03), toned(cloth, 0.9))
    return mesh.finish("pillow", cloth.name)
