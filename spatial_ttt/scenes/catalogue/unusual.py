"""Things one remembers seeing: placed in long streams for recall, rarely elsewhere."""

from __future__ import annotations

from spatial_ttt.scenes.catalogue.mesh import ALONG_X, ALONG_Y, Furniture, Mesh, rolled, tilted
from spatial_ttt.scenes.catalogue.palette import (
    BLACK,
    CHROME,
    STEEL,
    Material,
    exact,
    paint,
    toned,
    vivid,
)
from spatial_ttt.scenes.dice import Dice


def teddy_bear(dice: Dice) -> Furniture:
    """Sitting: belly, head, ears, snout, arms, legs."""
    fur, mesh = (
        paint(dice, dice.pick(("brown", "light brown", "beige", "pink")), Material.FABRIC),
        Mesh(),
    )
    s = dice.uniform(0.9, 1.5)
    light = toned(fur, 1.5)
    mesh.ellipsoid((0, 0, 0.12 * s), (0.2 * s, 0.17 * s, 0.24 * s), fur)
    mesh.ellipsoid((0, -0.01 * s, 0.28 * s), (0.17 * s, 0.15 * s, 0.15 * s), fur)
    mesh.ellipsoid((0, -0.08 * s, 0.265 * s), (0.08 * s, 0.06 * s, 0.06 * s), light)
    mesh.ellipsoid((0, -0.11 * s, 0.275 * s), (0.022 * s, 0.018 * s, 0.018 * s), BLACK)
    for side in (-1, 1):
        mesh.ellipsoid((side * 0.065 * s, 0, 0.345 * s), (0.06 * s, 0.03 * s, 0.06 * s), fur)
        mesh.ellipsoid(
            (side * 0.03 * s, -0.075 * s, 0.3 * s), (0.018 * s, 0.018 * s, 0.018 * s), BLACK
        )
        mesh.ellipsoid((side * 0.12 * s, -0.05 * s, 0.16 * s), (0.08 * s, 0.14 * s, 0.08 * s), fur)
        mesh.ellipsoid(
            (side * 0.075 * s, -0.13 * s, 0.045 * s), (0.085 * s, 0.17 * s, 0.09 * s), fur
        )
    return mesh.finish("teddy bear", fur.name)


def football(dice: Dice) -> Furniture:
    """A white ball with black patches."""
    mesh, r = Mesh(), 0.11
    mesh.ellipsoid((0, 0, r), (0.22, 0.22, 0.22), exact("white"))
    spots = (
        (0, 0, 1),
        (0.87, 0, 0.48),
        (-0.7, 0.5, 0.48),
        (-0.27, -0.83, 0.48),
        (0.35, 0.8, 0.3),
        (0.5, -0.75, -0.1),
    )
    for x, y, z in spots:
        mesh.ellipsoid((x * 0.076, y * 0.076, r + z * 0.076), (0.08, 0.08, 0.08), BLACK)
    return mesh.finish("football", "white")


def guitar(dice: Dice) -> Furniture:
    """A guitar on a stand: two round bouts, hole, bridge, neck, head."""
    body, mesh = (
        paint(dice, dice.pick(("light brown", "orange", "red", "black", "blue")), Material.WOOD),
        Mesh(),
    )
    mesh.cylinder((0, 0, 0.3), (0.38, 0.36, 0.1), body, ALONG_Y)
    mesh.cylinder((0, 0, 0.55), (0.29, 0.28, 0.1), body, ALONG_Y)
    mesh.cylinder((0, -0.051, 0.45), (0.1, 0.1, 0.004), BLACK, ALONG_Y)
    mesh.box((0, -0.054, 0.26), (0.14, 0.012, 0.025), exact("brown", gain=0.6))
    mesh.box((0, -0.05, 0.76), (0.05, 0.03, 0.5), exact("brown", gain=0.7))
    mesh.box((0, -0.045, 1.04), (0.075, 0.025, 0.13), toned(body, 0.7))
    mesh.box((0, 0.04, 0.12), (0.3, 0.3, 0.03), BLACK)
    for side in (-0.12, 0.12):
        mesh.box((side, 0.04, 0.06), (0.025, 0.3, 0.12), BLACK)
    mesh.box((0, 0.12, 0.3), (0.04, 0.04, 0.35), BLACK)
    return mesh.finish("guitar", body.name)


def skateboard(dice: Dice) -> Furniture:
    """Deck with turned-up ends on four wheels."""
    deck, mesh = vivid(dice), Mesh()
    mesh.box((0, 0, 0.095), (0.56, 0.2, 0.014), BLACK)
    mesh.box((0, 0, 0.085), (0.56, 0.2, 0.01), deck)
    for side in (-1, 1):
        mesh.box((side * 0.335, 0, 0.115), (0.14, 0.2, 0.016), deck, rolled(side * -0.35))
        mesh.box((side * 0.2, 0, 0.06), (0.06, 0.08, 0.04), STEEL)
        mesh.cylinder((side * 0.2, 0, 0.03), (0.06, 0.06, 0.2), exact("white"), ALONG_Y)
    return mesh.finish("skateboard", deck.name)


def globe(dice: Dice) -> Furniture:
    """A blue ball with land on a foot."""
    mesh = Mesh()
    mesh.cylinder((0, 0, 0.012), (0.18, 0.18, 0.024), exact("brown"))
    mesh.cylinder((0, 0, 0.05), (0.025, 0.025, 0.08), CHROME)
    mesh.ellipsoid((0, 0, 0.22), (0.28, 0.28, 0.28), exact("blue"))
    for x, y, z, size in (
        (0.06, -0.1, 0.05, 0.14),
        (-0.08, -0.07, -0.03, 0.13),
        (0.0, 0.1, 0.04, 0.15),
        (0.1, 0.05, -0.05, 0.1),
    ):
        mesh.ellipsoid((x, y, 0.22 + z), (size, size * 0.7, size), exact("green"))
    mesh.box((0.155, 0, 0.2), (0.015, 0.02, 0.28), CHROME)
    return mesh.finish("globe", "blue")


def rubber_duck(dice: Dice) -> Furniture:
    """A large yellow bath duck."""
    yellow, mesh = exact("yellow"), Mesh()
    mesh.ellipsoid((0, 0, 0.08), (0.19, 0.25, 0.16), yellow)
    mesh.ellipsoid((0, -0.08, 0.19), (0.13, 0.13, 0.13), yellow)
    mesh.ellipsoid((0, -0.155, 0.18), (0.07, 0.07, 0.025), exact("orange"))
    mesh.ellipsoid((0, 0.12, 0.12), (0.08, 0.08, 0.06), yellow)
    for side in (-1, 1):
        mesh.ellipsoid((side * 0.045, -0.125, 0.215), (0.022, 0.022, 0.026), BLACK)
        mesh.ellipsoid((side * 0.09, 0.02, 0.09), (0.04, 0.14, 0.08), toned(yellow, 0.85))
    return mesh.finish("rubber duck", "yellow")


def bicycle(dice: Dice) -> Furniture:
    """Two wheels, frame, saddle, handlebar."""
    frame, mesh = vivid(dice, Material.METAL), Mesh()
    for side in (-1, 1):
        mesh.cylinder((side * 0.5, 0, 0.33), (0.66, 0.66, 0.04), BLACK, ALONG_Y)
        mesh.cylinder((side * 0.5, 0, 0.33), (0.56, 0.56, 0.046), exact("silver"), ALONG_Y)
        mesh.cylinder((side * 0.5, 0, 0.33), (0.09, 0.09, 0.09), BLACK, ALONG_Y)
    mesh.box((0.02, 0, 0.7), (0.56, 0.04, 0.045), frame)
    mesh.box((0.12, 0, 0.5), (0.04, 0.04, 0.58), frame, rolled(-0.75))
    mesh.box((-0.19, 0, 0.52), (0.045, 0.045, 0.62), frame, rolled(-0.25))
    mesh.box((0.37, 0, 0.6), (0.045, 0.045, 0.66), frame, rolled(-0.35))
    mesh.ellipsoid((-0.28, 0, 0.86), (0.28, 0.15, 0.08), BLACK)
    mesh.cylinder((0.27, 0, 0.98), (0.03, 0.03, 0.5), STEEL, ALONG_Y)
    return mesh.finish("bicycle", frame.name)


def suitcase(dice: Dice) -> Furniture:
    """A ribbed trolley case with handle and wheels."""
    shell, mesh = vivid(dice), Mesh()
    mesh.box((0, 0, 0.34), (0.44, 0.26, 0.6), shell)
    for rib in range(4):
        mesh.box(((rib - 1.5) * 0.09, -0.134, 0.34), (0.03, 0.012, 0.52), toned(shell, 0.75))
    mesh.box((0, 0.1, 0.74), (0.22, 0.02, 0.02), BLACK)
    for side in (-1, 1):
        mesh.box((side * 0.1, 0.1, 0.69), (0.018, 0.018, 0.1), STEEL)
        mesh.cylinder((side * 0.18, 0, 0.025), (0.05, 0.05, 0.22), BLACK, ALONG_Y)
    return mesh.finish("suitcase", shell.name)


def toy_truck(dice: Dice) -> Furniture:
    """Cab, load bed, four wheels."""
    cab, mesh = vivid(dice), Mesh()
    mesh.box((0.12, 0, 0.13), (0.12, 0.15, 0.16), cab)
    mesh.box((0.15, 0, 0.165), (0.07, 0.154, 0.07), exact("light blue"))
    mesh.box((-0.07, 0, 0.13), (0.25, 0.16, 0.13), vivid(dice))
    mesh.box((0, 0, 0.055), (0.38, 0.1, 0.03), BLACK)
    for x in (-0.12, 0.12):
        mesh.cylinder((x, 0, 0.045), (0.09, 0.09, 0.17), BLACK, ALONG_Y)
    return mesh.finish("toy truck", cab.name)


def dumbbell(dice: Dice) -> Furniture:
    """A bar between two round weights."""
    color, mesh = vivid(dice), Mesh()
    mesh.cylinder((0, 0, 0.08), (0.035, 0.035, 0.34), CHROME, ALONG_X)
    for side in (-1, 1):
        mesh.cylinder((side * 0.12, 0, 0.08), (0.16, 0.16, 0.07), color, ALONG_X)
        mesh.cylinder((side * 0.165, 0, 0.08), (0.12, 0.12, 0.03), BLACK, ALONG_X)
    return mesh.finish("dumbbell", color.name)


def umbrella(dice: Dice) -> Furniture:
    """A closed umbrella in a stand."""
    cloth, mesh = vivid(dice, Material.FABRIC), Mesh()
    mesh.cylinder((0, 0, 0.2), (0.24, 0.24, 0.4), exact("black", Material.METAL))
    mesh.ellipsoid((0, 0, 0.48), (0.12, 0.12, 0.6), cloth, tilted(0.08))
    mesh.cylinder((0, 0.04, 0.84), (0.025, 0.025, 0.16), exact("brown"), tilted(0.08))
    return mesh.finish("umbrella", cloth.name)
