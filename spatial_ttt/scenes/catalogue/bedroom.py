"""Beds and what hangs at windows and lies on floors."""

from __future__ import annotations

from spatial_ttt.scenes.catalogue.mesh import ALONG_X, ALONG_Y, Furniture, Mesh
from spatial_ttt.scenes.catalogue.palette import (
    DARK_METAL,
    STEEL,
    WHITE,
    Material,
    Paint,
    calm_fabric,
    exact,
    fabric,
    paint,
    toned,
    vivid,
    wood,
)
from spatial_ttt.scenes.dice import Dice


def _made_bed(dice: Dice, width: float, length: float, num_pillows: int) -> Furniture:
    """Frame on legs, mattress, duvet folded back below the pillows, headboard at the wall."""
    top = dice.uniform(0.48, 0.58)
    frame, cloth, mesh = wood(dice), fabric(dice), Mesh()
    sheet = exact("white", Material.FABRIC, dice.uniform(0.85, 1.0))
    rail = 0.14
    mesh.legs((width - 0.12, length - 0.12), rail, 0.07, frame)
    mesh.box((0, 0, rail + 0.09), (width, length, 0.18), frame)
    mattress = top - rail - 0.18
    mesh.box((0, 0, top - mattress / 2), (width - 0.04, length - 0.04, mattress), sheet)
    cover = length * dice.uniform(0.62, 0.7)
    center = (0.0, -length / 2 + cover / 2 - 0.01, top - mattress * 0.42)
    mesh.box(center, (width + 0.03, cover, mattress * 1.0 + 0.06), cloth)
    fold = (0.0, -length / 2 + cover - 0.1, top + 0.025)
    mesh.box(
        fold,
        (width + 0.034, 0.24, 0.062),
        toned(sheet, 1.0) if cloth.name != "white" else calm_fabric(dice),
    )
    head = dice.uniform(0.95, 1.2)
    board = frame if dice.chance(0.6) else toned(fabric(dice), 1.0)
    mesh.box((0, length / 2 + 0.03, head / 2), (width + 0.04, 0.06, head), board)
    place = width / num_pillows
    for pillow in range(num_pillows):
        x = -width / 2 + place * (pillow + 0.5)
        size = (min(place - 0.08, 0.66), 0.42, 0.17)
        y = length / 2 - 0.25
        linen = WHITE._replace(material=Material.FABRIC)
        mesh.ellipsoid((x, y, top + 0.05), size, linen)
        mesh.box((x, y, top + 0.04), (size[0] * 0.94, size[1] * 0.92, 0.04), linen)
    height = top - mattress * 0.42 + (mattress + 0.06) / 2
    mesh.surface((0, -length / 2 + (cover - 0.25) / 2, height), width - 0.2, cover - 0.3, 1.2)
    return mesh.finish("bed", cloth.name)


def bed(dice: Dice) -> Furniture:
    """A double bed, 1.4 to 1.8 m wide."""
    return _made_bed(dice, dice.pick((1.4, 1.5, 1.6, 1.8)), dice.uniform(1.95, 2.1), 2)


def single_bed(dice: Dice) -> Furniture:
    """A single bed, 0.8 to 1.0 m wide."""
    return _made_bed(dice, dice.pick((0.8, 0.9, 1.0)), dice.uniform(1.85, 2.05), 1)


def crib(dice: Dice) -> Furniture:
    """A baby's bed with bars all round."""
    width, depth, height = 1.24, 0.66, dice.uniform(0.85, 0.95)
    frame, mesh = wood(dice), Mesh()
    mesh.box((0, 0, 0.36), (width - 0.04, depth - 0.04, 0.12), calm_fabric(dice))
    mesh.legs((width - 0.04, depth - 0.04), height, 0.045, frame)
    for side in (-1, 1):
        y = side * (depth / 2 - 0.02)
        for z in (0.28, height - 0.03):
            mesh.box((0, y, z), (width - 0.06, 0.03, 0.05), frame)
        for bar in range(4):
            x = (bar - 1.5) * width / 5
            mesh.box((x, y, (0.28 + height) / 2), (0.025, 0.02, height - 0.3), frame)
        mesh.box(
            (side * (width / 2 - 0.02), 0, (0.28 + height) / 2),
            (0.03, depth - 0.06, height - 0.3),
            frame,
        )
    return mesh.finish("crib", frame.name)


def rug(dice: Dice) -> Furniture:
    """A flat carpet with a border; 1 cm high."""
    width, depth = dice.uniform(1.6, 2.4), dice.uniform(1.1, 1.7)
    cloth, mesh = fabric(dice), Mesh()
    pile = cloth._replace(material=Material.CARPET)
    if dice.chance(0.25):
        mesh.cylinder((0, 0, 0.004), (depth, depth, 0.008), pile)
        mesh.cylinder((0, 0, 0.005), (depth * 0.8, depth * 0.8, 0.01), toned(pile, 1.5))
        return mesh.finish("rug", cloth.name)
    mesh.box((0, 0, 0.004), (width, depth, 0.008), pile)
    mesh.box(
        (0, 0, 0.005),
        (width - 0.24, depth - 0.24, 0.01),
        toned(pile, 1.6 if dice.chance(0.5) else 0.6),
    )
    return mesh.finish("rug", cloth.name)


def bath_mat(dice: Dice) -> Furniture:
    """A small mat; counted as a rug."""
    cloth, mesh = fabric(dice), Mesh()
    pile = cloth._replace(material=Material.CARPET)
    mesh.box((0, 0, 0.005), (dice.uniform(0.6, 0.8), dice.uniform(0.4, 0.5), 0.01), pile)
    return mesh.finish("rug", cloth.name)


def drapery(dice: Dice) -> Paint:
    """The cloth of a room's curtains."""
    return calm_fabric(dice) if dice.chance(0.7) else fabric(dice)


def curtain(
    dice: Dice, width: float = 1.6, height: float = 2.2, cloth: Paint | None = None
) -> Furniture:
    """Two drawn-aside curtains of fluted cloth on a rod; `width` is the window's."""
    mesh = Mesh()
    cloth = cloth or drapery(dice)
    rod = width + 0.5
    mesh.cylinder(
        (0, 0, height - 0.02),
        (0.025, 0.025, rod),
        STEEL if dice.chance(0.5) else DARK_METAL,
        ALONG_X,
    )
    for side in (-1, 1):
        for fold in range(3):
            x = side * (rod / 2 - 0.045 - fold * 0.085)
            shade = cloth if fold % 2 == 0 else toned(cloth, 0.86)
            mesh.cylinder((x, 0, (height - 0.04) / 2), (0.1, 0.085, height - 0.04), shade)
    return mesh.finish("curtain", cloth.name)


def mirror(dice: Dice, width: float | None = None) -> Furniture:
    """A wall mirror: frame and a bright cool pane."""
    wide, height = width or dice.uniform(0.45, 0.7), dice.uniform(0.6, 1.1)
    frame, mesh = wood(dice) if dice.chance(0.6) else STEEL, Mesh()
    pane = exact("light blue", Material.METAL, 1.35)
    if dice.chance(0.25):
        mesh.cylinder((0, 0, 0), (wide, wide, 0.025), frame, ALONG_Y)
        mesh.cylinder((0, -0.01, 0), (wide * 0.9, wide * 0.9, 0.015), pane, ALONG_Y)
        return mesh.finish("mirror", frame.name)
    mesh.box((0, 0, 0), (wide, 0.025, height), frame)
    mesh.box((0, -0.01, 0), (wide - 0.07, 0.015, height - 0.07), pane)
    return mesh.finish("mirror", frame.name)


def picture(dice: Dice) -> Furniture:
    """A framed picture: frame, mount, and a motif of two coloured shapes."""
    width, height = dice.uniform(0.35, 0.9), dice.uniform(0.35, 0.7)
    frame, mesh = wood(dice), Mesh()
    mesh.box((0, 0, 0), (width, 0.025, height), frame)
    mesh.box((0, -0.006, 0), (width - 0.05, 0.02, height - 0.05), vivid(dice))
    if dice.chance(0.6):
        mesh.box(
            (0, -0.007, -height * 0.2), (width - 0.05, 0.022, height * 0.3), paint(dice, "green")
        )
        side = min(width, height) * 0.3
        mesh.cylinder(
            (width * 0.15, -0.008, height * 0.12), (side, side, 0.022), vivid(dice), ALONG_Y
        )
    return mesh.finish("picture", frame.name)


def clock(dice: Dice) -> Furniture:
    """A round wall clock with two hands."""
    width = dice.uniform(0.26, 0.4)
    rim, mesh = vivid(dice) if dice.chance(0.5) else exact("black"), Mesh()
    mesh.cylinder((0, 0, 0), (width, width, 0.03), rim, ALONG_Y)
    mesh.cylinder((0, -0.008, 0), (width * 0.88, width * 0.88, 0.02), WHITE, ALONG_Y)
    mesh.box((0, -0.02, width * 0.13), (0.016, 0.006, width * 0.28), exact("black"))
    mesh.box((width * 0.09, -0.02, 0), (width * 0.2, 0.006, 0.018), exact("black"))
    return mesh.finish("clock", rim.name)
