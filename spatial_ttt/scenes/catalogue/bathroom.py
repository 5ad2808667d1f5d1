"""Bathroom fixtures."""

from __future__ import annotations

from spatial_ttt.scenes.catalogue.mesh import ALONG_X, ALONG_Y, Furniture, Mesh
from spatial_ttt.scenes.catalogue.palette import (
    CHROME,
    STEEL,
    Material,
    Paint,
    exact,
    fabric,
    toned,
    wood,
)
from spatial_ttt.scenes.dice import Dice

CERAMIC = exact("white", gain=1.05)
SHADED = Paint("gray", (0.35, 0.36, 0.37))
WATER = Paint("light blue", (0.25, 0.42, 0.5))


def _ceramic(dice: Dice) -> Paint:
    return exact("white", gain=dice.uniform(0.92, 1.05))


def toilet(dice: Dice) -> Furniture:
    """Foot, egg-shaped bowl, seat ring with the hollow inside, raised lid, cistern with a button."""
    white, mesh = _ceramic(dice), Mesh()
    seat, height = dice.uniform(0.4, 0.44), dice.uniform(0.74, 0.86)
    width, length = dice.uniform(0.36, 0.4), dice.uniform(0.46, 0.52)
    mesh.cylinder((0, 0.04, 0.15), (0.22, 0.36, 0.3), white)
    mesh.ellipsoid((0, 0, seat - 0.11), (width * 0.96, length * 0.96, 0.3), white)
    mesh.cylinder((0, 0, seat - 0.05), (width, length, 0.07), white)
    ring = toned(white, 0.93)
    mesh.cylinder((0, 0, seat - 0.004), (width * 1.02, length * 1.02, 0.024), ring)
    mesh.cylinder((0, -0.01, seat + 0.002), (width * 0.62, length * 0.66, 0.018), SHADED)
    mesh.cylinder((0, -0.02, seat + 0.004), (width * 0.4, length * 0.4, 0.018), WATER)
    back = length / 2 + 0.12
    if dice.chance(0.7):
        lid_y = back - 0.2
        mesh.cylinder((0, lid_y, seat + 0.2), (width * 0.98, length * 0.8, 0.025), ring, ALONG_Y)
    mesh.box(
        (0, back - 0.08, seat + (height - seat) / 2 - 0.015),
        (0.4, 0.17, height - seat - 0.03),
        white,
    )
    mesh.box((0, back - 0.08, height - 0.018), (0.42, 0.19, 0.035), ring)
    mesh.cylinder((0, back - 0.08, height + 0.004), (0.06, 0.06, 0.012), CHROME)
    return mesh.finish("toilet", "white")


def bathtub(dice: Dice) -> Furniture:
    """A tub with thick rims, water inside and a tap at one end."""
    length, width, height = dice.uniform(1.5, 1.75), dice.uniform(0.7, 0.8), dice.uniform(0.52, 0.6)
    white, mesh = _ceramic(dice), Mesh()
    rim = 0.07
    for side in (-1, 1):
        mesh.box((0, side * (width - rim) / 2, height / 2), (length, rim, height), white)
        x = side * (length - rim) / 2
        mesh.box((x, 0, height / 2), (rim, width - 2 * rim, height), white)
        mesh.box((0, side * (width - rim) / 2, height), (length + 0.02, rim + 0.03, 0.03), white)
    mesh.box((0, 0, 0.08), (length - 2 * rim, width - 2 * rim, 0.16), toned(white, 0.9))
    if dice.chance(0.4):
        mesh.box((0, 0, height - 0.16), (length - 2 * rim, width - 2 * rim, 0.02), WATER)
    end = dice.sign() * (length / 2 - 0.035)
    mesh.cylinder((end, 0, height + 0.06), (0.04, 0.04, 0.12), CHROME)
    mesh.cylinder((end * 0.93, 0, height + 0.11), (0.03, 0.03, 0.14), CHROME, ALONG_X)
    return mesh.finish("bathtub", "white")


def sink(dice: Dice) -> Furniture:
    """A wash basin, on a pedestal or set in a vanity with doors."""
    white, mesh = _ceramic(dice), Mesh()
    height = dice.uniform(0.82, 0.88)
    if dice.chance(0.5):
        width, depth = dice.uniform(0.5, 0.62), dice.uniform(0.42, 0.5)
        mesh.cylinder((0, 0.06, (height - 0.14) / 2), (0.2, 0.22, height - 0.14), white)
        mesh.ellipsoid((0, 0, height - 0.07), (width * 0.96, depth * 0.94, 0.26), white)
        mesh.box((0, depth / 2 - 0.05, height - 0.06), (width * 0.7, 0.1, 0.12), white)
        mesh.cylinder((0, -0.0, height - 0.02), (width, depth, 0.07), white)
        mesh.cylinder((0, -0.02, height + 0.0125), (width * 0.74, depth * 0.64, 0.008), SHADED)
        mesh.cylinder((0, -0.02, height + 0.0155), (0.05, 0.05, 0.006), CHROME)
        back = depth / 2 - 0.05
    else:
        width, depth = dice.uniform(0.6, 1.0), dice.uniform(0.45, 0.52)
        body = wood(dice)
        mesh.box((0, 0.01, (height - 0.05) / 2), (width - 0.02, depth - 0.04, height - 0.05), body)
        for side in (-1, 1):
            size = (width / 2 - 0.03, 0.016, height - 0.2)
            mesh.box(
                (side * width / 4, -depth / 2 + 0.024, height / 2 - 0.02), size, toned(body, 1.15)
            )
            mesh.box((side * 0.04, -depth / 2 + 0.01, height / 2), (0.016, 0.014, 0.16), STEEL)
        mesh.box((0, 0, height - 0.025), (width, depth, 0.05), white)
        mesh.cylinder((0, -0.02, height + 0.006), (width * 0.62, depth * 0.68, 0.03), white)
        mesh.cylinder((0, -0.02, height + 0.01), (width * 0.54, depth * 0.58, 0.026), SHADED)
        back = depth / 2 - 0.06
    mesh.cylinder((0, back, height + 0.07), (0.035, 0.035, 0.15), CHROME)
    mesh.cylinder((0, back - 0.07, height + 0.135), (0.026, 0.026, 0.15), CHROME, ALONG_Y)
    return mesh.finish("sink", "white")


def shower(dice: Dice) -> Furniture:
    """A tray with glass panes' frame, riser and head."""
    side, height = dice.uniform(0.8, 0.95), 2.0
    white, mesh = _ceramic(dice), Mesh()
    mesh.box((0, 0, 0.05), (side, side, 0.1), white)
    mesh.box((0, 0, 0.101), (side - 0.1, side - 0.1, 0.006), SHADED)
    for x in (-1, 1):
        mesh.box(
            (x * (side / 2 - 0.015), -side / 2 + 0.015, height / 2), (0.03, 0.03, height), CHROME
        )
    mesh.box((0, -side / 2 + 0.015, height - 0.015), (side, 0.03, 0.03), CHROME)
    mesh.box((side / 2 - 0.015, 0, height - 0.015), (0.03, side, 0.03), CHROME)
    mesh.cylinder((0, side / 2 - 0.04, 1.4), (0.025, 0.025, 1.15), CHROME)
    mesh.cylinder((0, side / 2 - 0.16, 1.96), (0.22, 0.22, 0.02), CHROME)
    mesh.box((0, side / 2 - 0.03, 1.0), (0.2, 0.05, 0.06), CHROME)
    return mesh.finish("shower", "white")


def towel(dice: Dice) -> Furniture:
    """A towel folded over a rail."""
    width, drop = dice.uniform(0.4, 0.6), dice.uniform(0.45, 0.75)
    cloth, mesh = fabric(dice), Mesh()
    mesh.cylinder((0, 0, drop), (0.02, 0.02, width + 0.12), CHROME, ALONG_X)
    mesh.box((0, -0.02, drop / 2), (width * 0.9, 0.016, drop), cloth)
    mesh.box((0, 0, drop + 0.004), (width * 0.9, 0.055, 0.02), cloth)
    mesh.box((0, 0.02, drop * 0.6), (width * 0.9, 0.014, drop * 0.8), toned(cloth, 0.85))
    mesh.box((0, -0.0215, drop * 0.18), (width * 0.905, 0.016, 0.05), toned(cloth, 1.4))
    return mesh.finish("towel", cloth.name)


def toilet_paper(dice: Dice) -> Furniture:
    """A roll on a holder at the wall."""
    mesh = Mesh()
    mesh.cylinder((0, -0.06, 0), (0.11, 0.11, 0.1), exact("white", Material.FABRIC), ALONG_X)
    mesh.cylinder((0, -0.06, 0), (0.04, 0.04, 0.102), exact("light brown"), ALONG_X)
    mesh.box((0, 0, 0.03), (0.14, 0.02, 0.03), CHROME)
    mesh.box((0, -0.03, 0.06), (0.14, 0.06, 0.01), CHROME)
    return mesh.finish("toilet paper", "white")
