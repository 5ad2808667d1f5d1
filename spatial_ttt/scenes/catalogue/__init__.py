"""The catalogue: every kind of thing that can stand in a home, each a function of dice.

`make(kind, dice)` gives one instance. A kind is a way to build ("single bed", "office chair"); its
`category` is the word used in questions ("bed", "chair").
"""

from __future__ import annotations

from collections.abc import Callable

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.catalogue import (
    bathroom,
    bedroom,
    decor,
    electronics,
    kitchen,
    seating,
    storage,
    tables,
    unusual,
)
from spatial_ttt.scenes.catalogue.mesh import Furniture, scaled
from spatial_ttt.scenes.dice import Dice

Maker = Callable[[Dice], Furniture]

COMMON: dict[str, Maker] = {
    maker.__name__.replace("_", " "): maker
    for maker in (
        *(seating.sofa, seating.armchair, seating.chair, seating.office_chair, seating.stool),
        *(seating.bench, seating.ottoman, seating.pillow),
        *(tables.table, tables.coffee_table, tables.side_table, tables.desk, tables.tv_stand),
        *(tables.piano, tables.ironing_board),
        *(storage.nightstand, storage.dresser, storage.wardrobe, storage.cabinet),
        *(storage.bookshelf, storage.shelf, storage.shoe_rack, storage.trash_can),
        *(storage.box, storage.basket),
        *(bedroom.bed, bedroom.single_bed, bedroom.crib, bedroom.rug, bedroom.bath_mat),
        *(bedroom.curtain, bedroom.mirror, bedroom.picture, bedroom.clock),
        *(bathroom.toilet, bathroom.bathtub, bathroom.sink, bathroom.shower, bathroom.towel),
        bathroom.toilet_paper,
        *(kitchen.kitchen_sink, kitchen.stove, kitchen.refrigerator, kitchen.dishwasher),
        *(kitchen.washer, kitchen.range_hood, kitchen.microwave, kitchen.kettle),
        *(kitchen.toaster, kitchen.pot),
        *(electronics.tv, electronics.wall_tv, electronics.monitor, electronics.laptop),
        *(electronics.keyboard, electronics.speaker, electronics.lamp, electronics.floor_lamp),
        *(electronics.ceiling_light, electronics.fan, electronics.printer),
        *(decor.plant, decor.small_plant, decor.vase, decor.books, decor.cup, decor.bowl),
        *(decor.shoes, decor.backpack, decor.radiator, decor.fireplace, decor.coat_rack),
    )
}
UNUSUAL: dict[str, Maker] = {
    maker.__name__.replace("_", " "): maker
    for maker in (
        *(unusual.teddy_bear, unusual.football, unusual.guitar, unusual.skateboard),
        *(unusual.globe, unusual.rubber_duck, unusual.bicycle, unusual.suitcase),
        *(unusual.toy_truck, unusual.dumbbell, unusual.umbrella),
    )
}
_ALL = {**COMMON, **UNUSUAL}
KINDS = tuple(_ALL)
"""Every kind `make` accepts, in a fixed order."""

_SCALED = (
    "keyboard", "printer", "range hood", "kettle", "toaster", "backpack", "shoes", "cup", "bowl",
    "toilet paper", "guitar", "skateboard", "globe", "rubber duck", "bicycle", "suitcase",
    "toy truck", "dumbbell", "umbrella",
)  # fmt: skip
"""Kinds of one shape whose instances differ by their scale."""
TABLETOP_UNUSUAL = ("teddy bear", "football", "globe", "rubber duck", "toy truck", "dumbbell")
"""Unusual things small enough to stand on a table or bed."""


def make(kind: str, dice: Dice) -> Furniture:
    """One instance of a kind; the same dice make the same thing."""
    maker = _ALL.get(kind)
    if maker is None:
        raise SceneError(f"the catalogue has no {kind!r}; choose one of {', '.join(KINDS)}")
    thing = maker(dice)
    return scaled(thing, dice.uniform(0.92, 1.09)) if kind in _SCALED else thing
