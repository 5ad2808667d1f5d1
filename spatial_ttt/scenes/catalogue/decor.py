"""Plants, fires, heaters and the small things that lie about."""

from __future__ import annotations

from spatial_ttt.scenes.catalogue.mesh import Furniture, Mesh, tilted, yawed
from spatial_ttt.scenes.catalogue.palette import (
    BLACK,
    Material,
    Paint,
    exact,
    paint,
    toned,
    vivid,
    wood,
)
from spatial_ttt.scenes.dice import Dice

FIRE = Paint("orange", (1.0, 0.42, 0.05))


def _pot(mesh: Mesh, dice: Dice, width: float, height: float) -> Paint:
    """A tapered pot with earth on top."""
    clay = paint(dice, dice.pick(("orange", "white", "gray", "blue", "beige")))
    mesh.cylinder((0, 0, height / 2), (width * 0.86, width * 0.86, height), clay)
    mesh.cylinder((0, 0, height - 0.12 * height), (width, width, height * 0.24), clay)
    mesh.cylinder((0, 0, height), (width * 0.88, width * 0.88, 0.012), exact("brown", gain=0.5))
    return clay


def plant(dice: Dice) -> Furniture:
    """A floor plant in a pot: long leaves fanning out, or a stem with a leafy crown."""
    pot, height = dice.uniform(0.26, 0.38), dice.uniform(0.8, 1.5)
    mesh = Mesh()
    foot = pot * dice.uniform(0.75, 1.0)
    _pot(mesh, dice, pot, foot)
    green = paint(dice, dice.pick(("green", "dark green")))
    if dice.chance(0.6):
        leaves = dice.between(8, 10)
        for leaf in range(leaves):
            yaw, lean = leaf * 2.4, dice.uniform(0.12, 0.5)
            long = (height - foot) * dice.uniform(0.8, 1.05)
            shade = toned(green, dice.uniform(0.7, 1.4))
            _leaf(mesh, (foot, yaw, lean), long, shade)
    else:
        mesh.cylinder(
            (0, 0, (foot + height) / 2 - 0.1), (0.04, 0.04, height - foot - 0.1), exact("brown")
        )
        for blob in range(7):
            out = 0.14 if blob else 0.0
            x, y = _around(blob * 2.4, out)
            z = height - 0.12 - 0.055 * blob
            size = dice.uniform(0.22, 0.32)
            mesh.ellipsoid(
                (x, y, z), (size, size, size * 0.7), toned(green, dice.uniform(0.7, 1.4))
            )
    return mesh.finish("plant", "green")


def _around(angle: float, radius: float) -> tuple[float, float]:
    turn = yawed(angle)
    return turn[0] * radius, turn[1] * radius


def _leaf(mesh: Mesh, stand: tuple[float, float, float], long: float, shade: Paint) -> None:
    """A narrow ellipsoid that leans outward from (0, 0, foot); `stand` is (foot, yaw, lean)."""
    foot, yaw, lean = stand
    turn = tilted(lean, yaw)
    x, y, z = (turn[6] * long / 2, turn[7] * long / 2, turn[8] * long / 2)
    mesh.ellipsoid((x, y, foot + z), (long * 0.2, 0.02, long), shade, turn)


def small_plant(dice: Dice) -> Furniture:
    """A plant for a shelf or sill."""
    mesh, width = Mesh(), dice.uniform(0.1, 0.16)
    foot = width * 0.9
    _pot(mesh, dice, width, foot)
    green = paint(dice, dice.pick(("green", "dark green")))
    for leaf in range(5):
        _leaf(
            mesh,
            (foot, leaf * 2.4, dice.uniform(0.2, 0.6)),
            dice.uniform(0.14, 0.24),
            toned(green, dice.uniform(0.8, 1.3)),
        )
    return mesh.finish("plant", "green")


def vase(dice: Dice) -> Furniture:
    """A belly, a neck and often flowers."""
    width, height = dice.uniform(0.12, 0.18), dice.uniform(0.2, 0.32)
    glaze, mesh = vivid(dice), Mesh()
    mesh.cylinder((0, 0, 0.01), (width * 0.6, width * 0.6, 0.02), glaze)
    mesh.ellipsoid((0, 0, height * 0.4), (width, width, height * 0.78), glaze)
    mesh.cylinder(
        (0, 0, height * 0.85), (width * 0.45, width * 0.45, height * 0.3), toned(glaze, 0.9)
    )
    if dice.chance(0.6):
        petals = vivid(dice)
        for flower in range(3):
            x, y = _around(flower * 2.1, 0.05)
            mesh.ellipsoid((x, y, height + 0.1 + 0.03 * flower), (0.08, 0.08, 0.06), petals)
        mesh.cylinder((0, 0, height + 0.05), (0.06, 0.06, 0.1), exact("green"))
    return mesh.finish("vase", glaze.name)


def books(dice: Dice) -> Furniture:
    """A pile of books, each turned a little."""
    mesh, z, name = Mesh(), 0.0, "red"
    for _ in range(dice.between(2, 4)):
        thick, cover = dice.uniform(0.02, 0.045), vivid(dice)
        size = (dice.uniform(0.2, 0.26), dice.uniform(0.15, 0.19), thick)
        mesh.box((0, 0, z + thick / 2), size, cover, yawed(dice.uniform(-0.25, 0.25)))
        z += thick
        name = cover.name
    return mesh.finish("books", name)


def cup(dice: Dice) -> Furniture:
    """A mug with a handle."""
    glaze, mesh = vivid(dice) if dice.chance(0.7) else exact("white"), Mesh()
    mesh.cylinder((0, 0, 0.05), (0.085, 0.085, 0.1), glaze)
    mesh.cylinder((0, 0, 0.099), (0.07, 0.07, 0.004), exact("brown", gain=0.5))
    mesh.box((0.055, 0, 0.05), (0.03, 0.014, 0.06), glaze)
    return mesh.finish("cup", glaze.name)


def bowl(dice: Dice) -> Furniture:
    """A bowl of fruit."""
    glaze, mesh = vivid(dice) if dice.chance(0.5) else exact("white"), Mesh()
    mesh.cylinder((0, 0, 0.012), (0.13, 0.13, 0.024), glaze)
    mesh.cylinder((0, 0, 0.055), (0.27, 0.27, 0.065), glaze)
    for fruit, name in enumerate(("red", "orange", "yellow", "green")):
        x, y = _around(fruit * 1.57, 0.06)
        mesh.ellipsoid((x, y, 0.1), (0.085, 0.085, 0.08), paint(dice, name))
    return mesh.finish("bowl", glaze.name)


def shoes(dice: Dice) -> Furniture:
    """A pair of shoes with light soles."""
    leather, mesh = vivid(dice) if dice.chance(0.6) else exact("black"), Mesh()
    for side in (-0.07, 0.07):
        mesh.box((side, 0, 0.012), (0.09, 0.28, 0.024), exact("white"))
        mesh.ellipsoid((side, -0.03, 0.04), (0.09, 0.22, 0.09), leather)
        mesh.box((side, 0.09, 0.06), (0.08, 0.1, 0.08), leather)
    return mesh.finish("shoes", leather.name)


def backpack(dice: Dice) -> Furniture:
    """Body, front pocket, top loop and two straps behind."""
    cloth, mesh = vivid(dice, Material.FABRIC), Mesh()
    mesh.box((0, 0, 0.2), (0.31, 0.16, 0.4), cloth)
    mesh.ellipsoid((0, 0, 0.4), (0.31, 0.16, 0.12), cloth)
    mesh.box((0, -0.1, 0.14), (0.24, 0.07, 0.2), toned(cloth, 0.7))
    mesh.box((0, -0.137, 0.235), (0.2, 0.006, 0.012), BLACK)
    for side in (-0.09, 0.09):
        mesh.box((side, 0.09, 0.24), (0.05, 0.03, 0.3), toned(cloth, 0.5))
    return mesh.finish("backpack", cloth.name)


def radiator(dice: Dice) -> Furniture:
    """A ribbed wall heater."""
    width, height, mesh = dice.uniform(0.7, 1.2), dice.uniform(0.5, 0.62), Mesh()
    white = exact("white", gain=0.95)
    mesh.box((0, 0.02, 0.1 + height / 2), (width, 0.04, height), toned(white, 0.7))
    ribs = 6
    for rib in range(ribs):
        x = width * ((rib + 0.5) / ribs - 0.5)
        mesh.box((x, -0.02, 0.1 + height / 2), (width / ribs * 0.66, 0.06, height - 0.02), white)
    mesh.cylinder((width / 2 + 0.02, 0.01, 0.14), (0.05, 0.05, 0.28), white)
    return mesh.finish("radiator", "white")


def fireplace(dice: Dice) -> Furniture:
    """A mantel on two pillars around a dark hearth with logs and flames."""
    width, height, depth = dice.uniform(1.2, 1.5), dice.uniform(1.05, 1.2), 0.36
    stone = exact(
        dice.pick(("white", "gray", "beige")),
        Material.TILES if dice.chance(0.4) else Material.PLAIN,
    )
    mesh = Mesh()
    for side in (-1, 1):
        mesh.box(
            (side * (width / 2 - 0.14), 0, height / 2 - 0.03),
            (0.22, depth - 0.04, height - 0.06),
            stone,
        )
    mesh.box((0, 0, height - 0.16), (width - 0.5, depth - 0.04, 0.24), stone)
    mesh.box((0, 0, height - 0.025), (width, depth, 0.05), toned(stone, 0.9))
    mesh.box(
        (0, depth / 2 - 0.03, (height - 0.28) / 2),
        (width - 0.5, 0.04, height - 0.28),
        exact("black", gain=0.5),
    )
    mesh.box((0, 0, 0.02), (width - 0.5, depth - 0.06, 0.04), exact("black"))
    for log in range(2):
        mesh.box(
            (0, 0.03 - 0.08 * log, 0.07),
            (width * 0.36, 0.07, 0.07),
            exact("brown"),
            yawed(0.25 - 0.5 * log),
        )
    if dice.chance(0.6):
        for flame in range(3):
            tall = 0.34 - 0.1 * abs(flame - 1)
            mesh.ellipsoid(((flame - 1) * 0.08, -0.02, 0.08 + tall / 2), (0.09, 0.06, tall), FIRE)
    mesh.surface((0, 0, height), width - 0.2, depth - 0.1)
    return mesh.finish("fireplace", stone.name)


def coat_rack(dice: Dice) -> Furniture:
    """A pole with arms and a coat or two."""
    frame, mesh, height = wood(dice), Mesh(), dice.uniform(1.65, 1.8)
    mesh.cylinder((0, 0, 0.015), (0.36, 0.36, 0.03), frame)
    mesh.cylinder((0, 0, height / 2), (0.05, 0.05, height), frame)
    mesh.box((0, 0, height - 0.08), (0.36, 0.03, 0.03), frame)
    mesh.box((0, 0, height - 0.14), (0.03, 0.36, 0.03), frame)
    for side in (-1, 1):
        coat = vivid(dice, Material.FABRIC)
        mesh.ellipsoid((side * 0.13, 0, height - 0.5), (0.22, 0.3, 0.75), coat)
    return mesh.finish("coat rack", frame.name)
