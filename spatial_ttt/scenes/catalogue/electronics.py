"""Screens, lamps and other electric things."""

from __future__ import annotations

from spatial_ttt.scenes.catalogue.mesh import ALONG_Y, Furniture, Mesh, tilted
from spatial_ttt.scenes.catalogue.palette import (
    BLACK,
    DARK_METAL,
    GLOW,
    SCREEN,
    STEEL,
    WHITE,
    Material,
    Paint,
    exact,
    fabric,
    paint,
    toned,
    vivid,
    wood,
)
from spatial_ttt.scenes.dice import Dice


def _display(dice: Dice) -> Paint:
    """A screen, lit or off."""
    return SCREEN if dice.chance(0.6) else Paint("black", (0.012, 0.014, 0.02))


def tv(dice: Dice, widest: float = 1.4) -> Furniture:
    """A flat television on a foot: thin dark frame around the screen (32 to 65 inches)."""
    width, mesh = dice.uniform(0.75, max(0.76, min(widest, 1.4))), Mesh()
    height = width * 9 / 16 + 0.02
    mesh.box((0, 0, 0.07 + height / 2), (width, 0.05, height), exact("black", gain=0.8))
    mesh.box((0, -0.024, 0.075 + height / 2), (width - 0.035, 0.008, height - 0.04), _display(dice))
    mesh.box((0, 0, 0.04), (0.12, 0.04, 0.08), BLACK)
    mesh.box((0, 0, 0.008), (width * 0.45, 0.22, 0.016), BLACK)
    return mesh.finish("tv", "black")


def wall_tv(dice: Dice) -> Furniture:
    """A television hung on the wall."""
    width, mesh = dice.uniform(0.9, 1.45), Mesh()
    height = width * 9 / 16 + 0.02
    mesh.box((0, 0, height / 2), (width, 0.05, height), exact("black", gain=0.8))
    mesh.box((0, -0.024, height / 2 + 0.004), (width - 0.035, 0.008, height - 0.04), _display(dice))
    mesh.box((0, 0.035, height / 2), (0.3, 0.03, 0.2), DARK_METAL)
    return mesh.finish("tv", "black")


def monitor(dice: Dice) -> Furniture:
    """A computer screen on a stand."""
    width, mesh = dice.uniform(0.5, 0.68), Mesh()
    height = width * 0.58
    mesh.box((0, 0, 0.12 + height / 2), (width, 0.04, height), BLACK)
    mesh.box((0, -0.019, 0.125 + height / 2), (width - 0.03, 0.008, height - 0.035), _display(dice))
    mesh.box((0, 0.02, 0.09), (0.06, 0.03, 0.18), STEEL)
    mesh.box((0, 0.01, 0.006), (0.24, 0.18, 0.012), STEEL)
    return mesh.finish("monitor", "black")


def laptop(dice: Dice) -> Furniture:
    """An open laptop: base with keys, leaning screen."""
    width, mesh = dice.uniform(0.31, 0.37), Mesh()
    shell = paint(dice, dice.pick(("silver", "gray", "black")), Material.METAL)
    mesh.box((0, 0, 0.009), (width, 0.23, 0.018), shell)
    mesh.box((0, 0.03, 0.0185), (width * 0.86, 0.1, 0.003), BLACK)
    mesh.box((0, -0.07, 0.0185), (0.1, 0.06, 0.002), toned(shell, 0.8))
    mesh.box((0, 0.15, 0.12), (width, 0.012, 0.22), shell, tilted(0.3))
    mesh.box((0, 0.142, 0.122), (width - 0.024, 0.006, 0.19), _display(dice), tilted(0.3))
    return mesh.finish("laptop", shell.name)


def keyboard(dice: Dice) -> Furniture:
    """A flat case with rows of keys."""
    case = exact(dice.pick(("black", "white", "gray")))
    mesh = Mesh()
    mesh.box((0, 0, 0.01), (0.44, 0.14, 0.02), case)
    keys = toned(case, 0.5) if case.name == "white" else exact("gray", gain=0.5)
    for row in range(4):
        mesh.box((0, (row - 1.5) * 0.03, 0.021), (0.41, 0.022, 0.008), keys)
    return mesh.finish("keyboard", case.name)


def speaker(dice: Dice) -> Furniture:
    """A box with two round cones."""
    width, height = dice.uniform(0.18, 0.26), dice.uniform(0.3, 0.9)
    case, mesh = exact("black") if dice.chance(0.6) else wood(dice), Mesh()
    mesh.box((0, 0, height / 2), (width, width * 1.1, height), case)
    face = -width * 0.55
    mesh.cylinder(
        (0, face, height * 0.36), (width * 0.8, width * 0.8, 0.02), exact("gray", gain=0.5), ALONG_Y
    )
    mesh.cylinder(
        (0, face, height * 0.78), (width * 0.4, width * 0.4, 0.02), exact("gray", gain=0.5), ALONG_Y
    )
    return mesh.finish("speaker", case.name)


def lamp(dice: Dice) -> Furniture:
    """A table lamp: foot, stem, cloth shade."""
    height, shade = dice.uniform(0.38, 0.58), dice.uniform(0.22, 0.32)
    foot, mesh = vivid(dice) if dice.chance(0.5) else wood(dice), Mesh()
    cloth = exact("beige", Material.FABRIC, 1.4) if dice.chance(0.6) else fabric(dice)
    mesh.cylinder((0, 0, 0.012), (0.14, 0.14, 0.024), foot)
    if dice.chance(0.5):
        mesh.ellipsoid((0, 0, height * 0.3), (0.15, 0.15, height * 0.52), foot)
    mesh.cylinder((0, 0, height * 0.4), (0.03, 0.03, height * 0.76), foot)
    mesh.cylinder((0, 0, height * 0.8), (shade, shade, height * 0.4), cloth)
    mesh.cylinder((0, 0, height * 0.9955), (shade * 0.86, shade * 0.86, 0.012), GLOW)
    return mesh.finish("lamp", cloth.name)


def floor_lamp(dice: Dice) -> Furniture:
    """A standing lamp."""
    height, shade = dice.uniform(1.4, 1.7), dice.uniform(0.32, 0.45)
    metal, mesh = STEEL if dice.chance(0.4) else DARK_METAL, Mesh()
    cloth = exact("beige", Material.FABRIC, 1.4) if dice.chance(0.6) else fabric(dice)
    mesh.cylinder((0, 0, 0.015), (0.28, 0.28, 0.03), metal)
    mesh.cylinder((0, 0, height / 2), (0.03, 0.03, height - 0.1), metal)
    mesh.cylinder((0, 0, height - 0.15), (shade, shade, 0.3), cloth)
    mesh.cylinder((0, 0, height), (shade * 0.86, shade * 0.86, 0.012), GLOW)
    return mesh.finish("lamp", cloth.name)


def ceiling_light(dice: Dice) -> Furniture:
    """A lamp under the ceiling: a flat bowl or a pendant. Its top is the ceiling."""
    mesh = Mesh()
    if dice.chance(0.5):
        width = dice.uniform(0.3, 0.5)
        mesh.ellipsoid((0, 0, 0), (width, width, 0.14), GLOW)
        mesh.cylinder((0, 0, 0.05), (width * 0.9, width * 0.9, 0.04), STEEL)
        return mesh.finish("ceiling light", "white")
    drop, width = dice.uniform(0.15, 0.3), dice.uniform(0.24, 0.36)
    shade = vivid(dice) if dice.chance(0.5) else WHITE
    mesh.cylinder((0, 0, drop / 2), (0.012, 0.012, drop), BLACK)
    mesh.cylinder((0, 0, drop), (0.09, 0.09, 0.02), BLACK)
    mesh.cylinder((0, 0, -0.06), (width, width, 0.12), shade)
    mesh.ellipsoid((0, 0, -0.12), (width * 0.7, width * 0.7, 0.1), GLOW)
    return mesh.finish("ceiling light", shade.name)


def fan(dice: Dice) -> Furniture:
    """A standing fan: foot, pole, round cage with blades."""
    height, mesh = dice.uniform(1.0, 1.25), Mesh()
    body = exact(dice.pick(("white", "black")))
    mesh.cylinder((0, 0, 0.015), (0.38, 0.38, 0.03), body)
    mesh.cylinder((0, 0, height / 2 - 0.05), (0.03, 0.03, height - 0.1), body)
    mesh.cylinder((0, -0.06, height), (0.42, 0.42, 0.06), exact("gray", gain=0.9), ALONG_Y)
    mesh.cylinder((0, -0.065, height), (0.38, 0.38, 0.06), paint(dice, "light blue"), ALONG_Y)
    mesh.cylinder((0, -0.08, height), (0.1, 0.1, 0.05), body, ALONG_Y)
    mesh.box((0, 0.02, height), (0.1, 0.12, 0.1), body)
    return mesh.finish("fan", body.name)


def printer(dice: Dice) -> Furniture:
    """A desktop printer with paper in the tray."""
    case, mesh = exact(dice.pick(("white", "black", "gray"))), Mesh()
    mesh.box((0, 0, 0.09), (0.44, 0.34, 0.18), case)
    mesh.box((0, 0.0, 0.185), (0.4, 0.26, 0.02), toned(case, 0.7))
    mesh.box((0, -0.2, 0.06), (0.24, 0.1, 0.012), WHITE)
    mesh.box(
        (0.12, -0.172, 0.14), (0.1, 0.01, 0.04), Paint("blue", (0.1, 0.3, 0.6), Material.SCREEN)
    )
    mesh.box((0, 0.16, 0.25), (0.24, 0.01, 0.18), WHITE, tilted(0.3))
    return mesh.finish("printer", case.name)
