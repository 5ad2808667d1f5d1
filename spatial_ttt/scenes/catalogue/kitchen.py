"""Kitchen and laundry: units of about 0.6 m that stand side by side, and what stands on them."""

from __future__ import annotations

from spatial_ttt.scenes.catalogue.mesh import ALONG_X, ALONG_Y, Furniture, Mesh
from spatial_ttt.scenes.catalogue.palette import (
    BLACK,
    CHROME,
    DARK_METAL,
    STEEL,
    WHITE,
    Material,
    Paint,
    exact,
    paint,
    toned,
    vivid,
)
from spatial_ttt.scenes.dice import Dice

COUNTER_HEIGHT = 0.9
UNIT_DEPTH = 0.62


def kitchen_cabinet(dice: Dice, front: Paint, top: Paint, width: float = 0.6) -> Furniture:
    """A base unit with a worktop; doors and worktop match their neighbours."""
    mesh, depth, height = Mesh(), UNIT_DEPTH, COUNTER_HEIGHT
    _base_unit(mesh, dice, front, width)
    mesh.box((0, -0.005, height - 0.02), (width, depth + 0.01, 0.04), top)
    mesh.surface((0, 0, height), width - 0.02, depth - 0.06, 0.5)
    return mesh.finish("cabinet", front.name)


def _base_unit(mesh: Mesh, dice: Dice, front: Paint, width: float) -> None:
    """Body, plinth, one or two doors or three drawers, each with a handle."""
    depth, height = UNIT_DEPTH, COUNTER_HEIGHT - 0.04
    mesh.box(
        (0, 0.015, 0.1 + (height - 0.1) / 2),
        (width, depth - 0.03, height - 0.1),
        toned(front, 0.75),
    )
    mesh.box((0, 0.04, 0.05), (width, depth - 0.1, 0.1), toned(front, 0.25))
    y = -depth / 2 + 0.01
    if dice.chance(0.35):
        tall = (height - 0.12) / 3
        for row in range(3):
            z = 0.11 + tall * (row + 0.5)
            mesh.box((0, y, z), (width - 0.012, 0.018, tall - 0.012), front)
            mesh.box((0, y - 0.014, z), (min(0.3, width * 0.5), 0.012, 0.014), STEEL)
        return
    doors = 2 if width > 0.7 else 1
    for door in range(doors):
        x = width * ((door + 0.5) / doors - 0.5)
        mesh.box((x, y, height / 2 + 0.05), (width / doors - 0.012, 0.018, height - 0.12), front)
        mesh.box((x, y - 0.014, height - 0.1), (0.2, 0.012, 0.014), STEEL)


def sink_cabinet(dice: Dice, front: Paint, top: Paint, width: float = 0.8) -> Furniture:
    """A base unit whose worktop leaves an opening of width - 0.2 by 0.42 m for a basin."""
    mesh, height = Mesh(), COUNTER_HEIGHT
    _base_unit(mesh, dice, front, width)
    mesh.box((0, -0.265, height - 0.02), (width, 0.11, 0.04), top)
    mesh.box((0, 0.26, height - 0.02), (width, 0.1, 0.04), top)
    for side in (-1, 1):
        mesh.box((side * (width / 2 - 0.05), 0, height - 0.02), (0.1, 0.42, 0.04), top)
    mesh.surface((0, 0, height - 0.04), width - 0.2, 0.42, 0.5)
    return mesh.finish("cabinet", front.name)


def kitchen_sink(dice: Dice, width: float = 0.6) -> Furniture:
    """A steel basin for the opening of a sink cabinet: rim, dark hollow, drain, high tap."""
    mesh = Mesh()
    basin = STEEL if dice.chance(0.75) else WHITE
    mesh.box((0, 0, 0.015), (width, 0.41, 0.03), toned(basin, 0.32))
    for side in (-1, 1):
        mesh.box((0, side * 0.19, 0.025), (width, 0.03, 0.05), basin)
        mesh.box((side * (width / 2 - 0.015), 0, 0.025), (0.03, 0.35, 0.05), basin)
    mesh.cylinder((0, 0, 0.031), (0.09, 0.09, 0.008), CHROME)
    mesh.cylinder((0, 0.175, 0.16), (0.03, 0.03, 0.26), CHROME)
    mesh.cylinder((0, 0.09, 0.285), (0.026, 0.026, 0.2), CHROME, ALONG_Y)
    mesh.cylinder((0, 0.0, 0.265), (0.026, 0.026, 0.05), CHROME)
    return mesh.finish("sink", basin.name)


def wall_cabinet(dice: Dice, front: Paint, width: float = 0.8) -> Furniture:
    """A cupboard hung above the worktop."""
    depth, height, mesh = 0.34, dice.uniform(0.62, 0.72), Mesh()
    mesh.box((0, 0.01, height / 2), (width, depth - 0.02, height), toned(front, 0.75))
    for side in (-1, 1):
        mesh.box(
            (side * width / 4, -depth / 2 + 0.012, height / 2),
            (width / 2 - 0.012, 0.018, height - 0.012),
            front,
        )
        mesh.box((side * 0.04, -depth / 2 - 0.002, 0.09), (0.014, 0.012, 0.12), STEEL)
    return mesh.finish("cabinet", front.name)


def stove(dice: Dice) -> Furniture:
    """A range: four dark burners on the hob, a row of knobs, an oven door with window and bar."""
    width, depth, height = dice.pick((0.6, 0.6, 0.76)), UNIT_DEPTH, COUNTER_HEIGHT
    body = paint(dice, dice.pick(("white", "silver", "black")), Material.METAL)
    mesh = Mesh()
    mesh.box((0, 0.01, height / 2), (width, depth - 0.02, height), body)
    mesh.box((0, 0, height + 0.004), (width - 0.02, depth - 0.05, 0.01), exact("black", gain=0.8))
    ring = toned(exact("gray"), 1.0) if body.name == "black" else exact("gray", gain=0.8)
    for side in (-1, 1):
        for back in (-1, 1):
            size = 0.21 if side * back > 0 else 0.17
            spot = (side * width * 0.24, back * 0.14, height + 0.013)
            mesh.cylinder(spot, (size, size, 0.012), ring)
            mesh.cylinder(
                (spot[0], spot[1], height + 0.018), (size * 0.6, size * 0.6, 0.014), BLACK
            )
    face = -depth / 2 + 0.015
    for knob in range(4):
        x = width * ((knob + 0.5) / 4 - 0.5) * 0.9
        mesh.cylinder(
            (x, face - 0.015, height - 0.06),
            (0.045, 0.045, 0.03),
            BLACK if body.name != "black" else CHROME,
            ALONG_Y,
        )
    mesh.box((0, face - 0.006, 0.44), (width * 0.78, 0.016, 0.34), exact("black", gain=0.7))
    mesh.cylinder((0, face - 0.03, 0.7), (0.025, 0.025, width * 0.8), CHROME, ALONG_X)
    mesh.box((0, face - 0.004, 0.12), (width - 0.03, 0.012, 0.16), toned(body, 0.88))
    mesh.box((0, depth / 2 - 0.02, height + 0.06), (width, 0.04, 0.12), body)
    return mesh.finish("stove", body.name)


def refrigerator(dice: Dice) -> Furniture:
    """A fridge-freezer: two doors, one above the other or side by side, with bar handles."""
    width, depth, height = (
        dice.pick((0.6, 0.7, 0.9)),
        dice.uniform(0.62, 0.7),
        dice.uniform(1.65, 1.95),
    )
    body = paint(dice, dice.pick(("white", "silver", "silver", "black", "red")), Material.METAL)
    mesh, face = Mesh(), -depth / 2 + 0.03
    mesh.box((0, 0.03, height / 2), (width, depth - 0.06, height), toned(body, 0.8))
    bar = BLACK if body.name == "white" else CHROME
    if width > 0.8:
        for side in (-1, 1):
            mesh.box(
                (side * width / 4, face, height / 2 + 0.02),
                (width / 2 - 0.008, 0.06, height - 0.05),
                body,
            )
            mesh.box((side * 0.05, face - 0.05, height * 0.55), (0.025, 0.03, height * 0.42), bar)
    else:
        split = height * dice.pick((0.36, 0.64))
        for low, high in ((0.04, split - 0.006), (split + 0.006, height)):
            mesh.box((0, face, (low + high) / 2), (width, 0.06, high - low), body)
            near = high - 0.22 if low < 0.1 else low + 0.22
            mesh.box((-width / 2 + 0.06, face - 0.05, near), (0.025, 0.03, 0.32), bar)
    if dice.chance(0.4):
        mesh.box((width * 0.15, face - 0.031, height * 0.75), (0.14, 0.004, 0.18), vivid(dice))
    return mesh.finish("refrigerator", body.name)


def dishwasher(dice: Dice) -> Furniture:
    """A unit under the worktop with a control strip and a bar."""
    body, mesh = (
        paint(dice, dice.pick(("white", "silver", "silver", "black")), Material.METAL),
        Mesh(),
    )
    height = COUNTER_HEIGHT
    mesh.box((0, 0.015, height / 2), (0.6, UNIT_DEPTH - 0.03, height), toned(body, 0.7))
    mesh.box((0, -UNIT_DEPTH / 2 + 0.02, 0.43), (0.59, 0.03, 0.66), body)
    mesh.box((0, -UNIT_DEPTH / 2 + 0.018, 0.82), (0.59, 0.03, 0.1), exact("black"))
    mesh.cylinder((0, -UNIT_DEPTH / 2 - 0.01, 0.72), (0.022, 0.022, 0.46), CHROME, ALONG_X)
    mesh.box(
        (0.2, -UNIT_DEPTH / 2 + 0.002, 0.82),
        (0.1, 0.01, 0.03),
        Paint("green", (0.1, 0.6, 0.2), Material.SCREEN),
    )
    mesh.surface((0, 0, height), 0.56, 0.5, 0.5)
    return mesh.finish("dishwasher", body.name)


def washer(dice: Dice) -> Furniture:
    """A front-loading washing machine: round door, knob, display, detergent drawer."""
    body, mesh = paint(dice, dice.pick(("white", "white", "silver")), Material.METAL), Mesh()
    height, depth, face = 0.85, dice.uniform(0.55, 0.62), 0.0
    face = -depth / 2
    mesh.box((0, 0, height / 2), (0.6, depth, height), body)
    mesh.cylinder((0, face - 0.012, 0.4), (0.42, 0.42, 0.025), CHROME, ALONG_Y)
    mesh.cylinder((0, face - 0.02, 0.4), (0.33, 0.33, 0.025), exact("navy", gain=0.5), ALONG_Y)
    mesh.box((0, face - 0.003, 0.77), (0.58, 0.008, 0.12), toned(body, 0.8))
    mesh.cylinder((0.05, face - 0.015, 0.77), (0.07, 0.07, 0.03), CHROME, ALONG_Y)
    mesh.box((-0.2, face - 0.006, 0.77), (0.16, 0.012, 0.08), toned(body, 0.95))
    mesh.box(
        (0.2, face - 0.006, 0.77),
        (0.12, 0.01, 0.04),
        Paint("blue", (0.1, 0.3, 0.6), Material.SCREEN),
    )
    mesh.surface((0, 0, height), 0.54, depth - 0.06)
    return mesh.finish("washer", body.name)


def range_hood(dice: Dice) -> Furniture:
    """A chimney hood above the stove."""
    metal, mesh = STEEL if dice.chance(0.7) else DARK_METAL, Mesh()
    mesh.box((0, 0, 0.03), (0.6, 0.45, 0.06), metal)
    mesh.box((0, 0.08, 0.1), (0.42, 0.29, 0.1), metal)
    mesh.box((0, 0.12, 0.35), (0.24, 0.21, 0.5), metal)
    return mesh.finish("range hood", metal.name)


def microwave(dice: Dice) -> Furniture:
    """A box with a dark window, keypad and clock."""
    width, depth, height = (
        dice.uniform(0.44, 0.52),
        dice.uniform(0.32, 0.38),
        dice.uniform(0.26, 0.3),
    )
    body, mesh = paint(dice, dice.pick(("white", "silver", "black", "red"))), Mesh()
    mesh.box((0, 0, height / 2), (width, depth, height), body)
    face = -depth / 2
    mesh.box(
        (-width * 0.12, face - 0.002, height / 2),
        (width * 0.66, 0.01, height * 0.74),
        exact("black", gain=0.6),
    )
    mesh.box(
        (width * 0.36, face - 0.002, height / 2), (width * 0.2, 0.01, height * 0.8), exact("gray")
    )
    mesh.box(
        (width * 0.36, face - 0.005, height * 0.78),
        (width * 0.16, 0.01, 0.03),
        Paint("green", (0.1, 0.7, 0.3), Material.SCREEN),
    )
    mesh.box((width * 0.22, face - 0.02, height / 2), (0.015, 0.02, height * 0.7), CHROME)
    return mesh.finish("microwave", body.name)


def kettle(dice: Dice) -> Furniture:
    """Base, round body, knob, spout and handle."""
    body = paint(dice, dice.pick(("silver", "white", "black", "red", "turquoise")), Material.METAL)
    mesh = Mesh()
    mesh.cylinder((0, 0, 0.012), (0.16, 0.16, 0.024), BLACK)
    mesh.cylinder((0, 0, 0.1), (0.15, 0.15, 0.16), body)
    mesh.ellipsoid((0, 0, 0.18), (0.15, 0.15, 0.07), body)
    mesh.ellipsoid((0, 0, 0.22), (0.03, 0.03, 0.03), BLACK)
    mesh.box((-0.09, 0, 0.15), (0.07, 0.03, 0.03), body)
    mesh.box((0.115, 0, 0.11), (0.02, 0.025, 0.14), BLACK)
    mesh.box((0.085, 0, 0.17), (0.06, 0.025, 0.02), BLACK)
    return mesh.finish("kettle", body.name)


def toaster(dice: Dice) -> Furniture:
    """A rounded box with two slots and a lever."""
    body, mesh = (
        paint(dice, dice.pick(("silver", "red", "black", "turquoise")), Material.METAL),
        Mesh(),
    )
    mesh.box((0, 0, 0.1), (0.28, 0.17, 0.18), body)
    mesh.box((0, 0, 0.007), (0.26, 0.15, 0.014), BLACK)
    for side in (-0.035, 0.035):
        mesh.box((0, side, 0.189), (0.2, 0.025, 0.006), BLACK)
    mesh.box((0.148, 0, 0.13), (0.02, 0.05, 0.02), BLACK)
    return mesh.finish("toaster", body.name)


def pot(dice: Dice) -> Furniture:
    """A cooking pot with lid and two handles."""
    body, mesh = paint(dice, dice.pick(("silver", "black", "red", "blue")), Material.METAL), Mesh()
    width, height = dice.uniform(0.2, 0.26), dice.uniform(0.11, 0.16)
    mesh.cylinder((0, 0, height / 2), (width, width, height), body)
    mesh.ellipsoid((0, 0, height), (width * 0.98, width * 0.98, 0.04), STEEL)
    mesh.ellipsoid((0, 0, height + 0.025), (0.04, 0.04, 0.025), BLACK)
    for side in (-1, 1):
        mesh.box((side * (width / 2 + 0.02), 0, height * 0.8), (0.05, 0.06, 0.018), BLACK)
    return mesh.finish("pot", body.name)
