"""Cabinets, shelves, wardrobes, chests, bins and boxes."""

from __future__ import annotations

from typing import NamedTuple

from spatial_ttt.scenes.catalogue.mesh import Furniture, Mesh
from spatial_ttt.scenes.catalogue.palette import (
    BLACK,
    STEEL,
    Material,
    Paint,
    fabric,
    paint,
    toned,
    vivid,
    wood,
)
from spatial_ttt.scenes.dice import Dice


class _Chest(NamedTuple):
    """A body with a grid of fronts."""

    size: tuple[float, float, float]
    columns: int
    rows: int
    is_tall_handle: bool


def _fronts(mesh: Mesh, chest: _Chest, body: Paint, front: Paint) -> None:
    """Body, fronts and handles; handles are upright bars on doors, level bars on drawers."""
    width, depth, height = chest.size
    mesh.box((0, 0.01, 0.05 + (height - 0.05) / 2), (width, depth - 0.02, height - 0.05), body)
    mesh.box((0, 0.025, 0.025), (width - 0.04, depth - 0.05, 0.05), toned(body, 0.5))
    step_x, step_z = width / chest.columns, (height - 0.07) / chest.rows
    for column in range(chest.columns):
        for row in range(chest.rows):
            x, z = -width / 2 + step_x * (column + 0.5), 0.06 + step_z * (row + 0.5)
            mesh.box((x, -depth / 2 + 0.018, z), (step_x - 0.016, 0.018, step_z - 0.016), front)
            if chest.is_tall_handle:
                inward = 1 if column % 2 == 0 else -1
                if chest.columns == 1:
                    inward = 1
                handle = (x + inward * (step_x / 2 - 0.05), -depth / 2 + 0.006, z)
                mesh.box(handle, (0.016, 0.012, min(0.3, step_z * 0.4)), STEEL)
            else:
                mesh.box((x, -depth / 2 + 0.006, z), (min(0.16, step_x * 0.4), 0.012, 0.016), STEEL)


def nightstand(dice: Dice) -> Furniture:
    """A bedside cabinet with two drawers."""
    size = (dice.uniform(0.4, 0.52), dice.uniform(0.36, 0.44), dice.uniform(0.45, 0.6))
    body, mesh = wood(dice), Mesh()
    _fronts(mesh, _Chest(size, 1, 2, False), body, toned(body, 1.12))
    mesh.surface((0, 0, size[2]), size[0] - 0.04, size[1] - 0.06)
    return mesh.finish("nightstand", body.name)


def dresser(dice: Dice) -> Furniture:
    """A chest of drawers."""
    size = (dice.uniform(0.9, 1.4), dice.uniform(0.42, 0.5), dice.uniform(0.75, 0.95))
    body, mesh = wood(dice), Mesh()
    columns, rows = dice.pick(((2, 3), (1, 3), (1, 4)))
    _fronts(mesh, _Chest(size, columns, rows, False), body, toned(body, 1.12))
    mesh.surface((0, 0, size[2]), size[0] - 0.06, size[1] - 0.08)
    return mesh.finish("dresser", body.name)


def wardrobe(dice: Dice) -> Furniture:
    """A tall closet with two or three doors."""
    doors = dice.between(2, 3)
    size = (doors * dice.uniform(0.45, 0.55), dice.uniform(0.55, 0.64), dice.uniform(1.9, 2.2))
    body, mesh = wood(dice), Mesh()
    _fronts(mesh, _Chest(size, doors, 1, True), body, toned(body, 1.08))
    return mesh.finish("wardrobe", body.name)


def cabinet(dice: Dice) -> Furniture:
    """A sideboard or cupboard of doors."""
    columns = dice.between(2, 3)
    size = (columns * dice.uniform(0.4, 0.5), dice.uniform(0.36, 0.46), dice.pick((0.8, 0.9, 1.2)))
    body, mesh = wood(dice), Mesh()
    _fronts(mesh, _Chest(size, columns, 1, True), body, toned(body, 1.12))
    mesh.surface((0, 0, size[2]), size[0] - 0.06, size[1] - 0.08)
    return mesh.finish("cabinet", body.name)


def bookshelf(dice: Dice) -> Furniture:
    """Open shelves with rows of books and boxes on them."""
    width, depth, height = dice.uniform(0.7, 1.1), dice.uniform(0.28, 0.36), dice.uniform(1.5, 2.05)
    body, mesh = wood(dice), Mesh()
    mesh.box((0, depth / 2 - 0.01, height / 2), (width, 0.02, height), toned(body, 0.8))
    for side in (-1, 1):
        mesh.box((side * (width / 2 - 0.012), 0, height / 2), (0.024, depth, height), body)
    shelves = 5
    gap = (height - 0.08) / (shelves - 1)
    for level in range(shelves):
        z = 0.05 + level * gap
        mesh.box((0, -0.01, z), (width - 0.05, depth - 0.02, 0.024), body)
        if level == shelves - 1:
            continue
        x = -width / 2 + 0.04
        runs = dice.between(1, 2)
        for _ in range(runs):
            run = dice.uniform(0.4, 0.85) / runs * (width - 0.1)
            tall = min(gap - 0.06, dice.uniform(0.18, 0.28))
            mesh.box(
                (x + run / 2, 0.02, z + 0.012 + tall / 2), (run, depth * 0.62, tall), vivid(dice)
            )
            x += run + dice.uniform(0.0, 0.04)
    return mesh.finish("bookshelf", body.name)


def shelf(dice: Dice) -> Furniture:
    """A board on the wall with a few things on it."""
    width, depth = dice.uniform(0.6, 1.1), dice.uniform(0.18, 0.26)
    body, mesh = wood(dice), Mesh()
    mesh.box((0, 0, 0.015), (width, depth, 0.03), body)
    x = -width / 2 + 0.06
    while x < width / 2 - 0.2:
        run, tall = dice.uniform(0.08, 0.2), dice.uniform(0.12, 0.24)
        mesh.box((x + run / 2, 0.02, 0.03 + tall / 2), (run, depth * 0.6, tall), vivid(dice))
        x += run + dice.uniform(0.02, 0.25)
    return mesh.finish("shelf", body.name)


def shoe_rack(dice: Dice) -> Furniture:
    """Two tiers with pairs of shoes."""
    width, depth, height = dice.uniform(0.6, 0.85), 0.3, dice.uniform(0.4, 0.5)
    frame, mesh = wood(dice), Mesh()
    for side in (-1, 1):
        mesh.box((side * (width / 2 - 0.015), 0, height / 2), (0.03, depth, height), frame)
    for z in (0.1, height - 0.06):
        mesh.box((0, 0, z), (width - 0.06, depth, 0.02), frame)
        for pair in range(2):
            leather = vivid(dice)
            for offset in (-0.06, 0.06):
                x = width * (pair * 0.4 - 0.2) + offset
                mesh.ellipsoid((x, -0.01, z + 0.05), (0.1, 0.27, 0.09), leather)
    return mesh.finish("shoe rack", frame.name)


def trash_can(dice: Dice) -> Furniture:
    """A bin, round with a lid or square and open."""
    width, height = dice.uniform(0.24, 0.34), dice.uniform(0.3, 0.62)
    body, mesh = (
        paint(dice, dice.pick(("silver", "black", "white", "gray", "green")), Material.METAL),
        Mesh(),
    )
    if dice.chance(0.6):
        mesh.cylinder((0, 0, height * 0.46), (width, width, height * 0.92), body)
        mesh.cylinder((0, 0, height * 0.95), (width * 1.03, width * 1.03, height * 0.06), BLACK)
        mesh.box((0, -width / 2 - 0.02, 0.03), (0.08, 0.05, 0.02), BLACK)
    else:
        mesh.box((0, 0, height / 2), (width, width * 0.8, height), body)
        mesh.box((0, 0, height), (width - 0.03, width * 0.8 - 0.03, 0.008), toned(body, 0.15))
    return mesh.finish("trash can", body.name)


def box(dice: Dice) -> Furniture:
    """A cardboard box with tape along the lid."""
    width, depth, height = dice.uniform(0.3, 0.5), dice.uniform(0.25, 0.4), dice.uniform(0.2, 0.4)
    card, mesh = paint(dice, "light brown"), Mesh()
    mesh.box((0, 0, height / 2), (width, depth, height), card)
    mesh.box((0, 0, height), (width + 0.002, 0.05, 0.004), toned(card, 1.35))
    mesh.box((0, -depth / 2, height - 0.05), (0.05, 0.004, 0.1), toned(card, 1.35))
    mesh.box(
        (0, -depth / 2, height * 0.35), (width * 0.4, 0.003, height * 0.25), paint(dice, "white")
    )
    return mesh.finish("box", card.name)


def basket(dice: Dice) -> Furniture:
    """A woven basket, often with cloth in it."""
    width, height = dice.uniform(0.34, 0.46), dice.uniform(0.3, 0.5)
    weave, mesh = paint(dice, dice.pick(("beige", "light brown", "gray")), Material.FABRIC), Mesh()
    mesh.cylinder((0, 0, height / 2), (width, width, height), weave)
    mesh.cylinder((0, 0, height - 0.02), (width * 1.05, width * 1.05, 0.04), toned(weave, 0.75))
    mesh.ellipsoid((0, 0, height), (width * 0.86, width * 0.86, 0.14), fabric(dice))
    return mesh.finish("basket", weave.name)
