"""Colours by name, and the surface patterns the renderer draws.

A paint is a named colour in linear RGB with a material: the index of a procedural pattern.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from spatial_ttt.scenes.dice import Dice


class Material(IntEnum):
    """Procedural patterns (drawn by scenes.shading)."""

    PLAIN = 0
    WOOD = 1
    TILES = 2
    WALL = 3
    FABRIC = 4
    METAL = 5
    CARPET = 6
    GLASS = 7  # daylight shines through: emissive
    SCREEN = 8  # lit screen: emissive


class Paint(NamedTuple):
    """A named colour, linear RGB in 0..1, with its material."""

    name: str
    rgb: tuple[float, float, float]
    material: int = 0


_SHADES: dict[str, tuple[str, ...]] = {
    "white": ("f5f4f0", "eeece6", "fbfbf9"),
    "black": ("1c1c1e", "262527", "121214"),
    "gray": ("8a8c8f", "6d7074", "a5a6a8"),
    "silver": ("b9bcc0", "c8cacd", "a9adb2"),
    "brown": ("6b4426", "7d5230", "55351e", "8a5a35"),
    "light brown": ("b98a5a", "c49a6c", "a97c50"),
    "beige": ("d8c6a5", "cdbb9c", "e2d3b8"),
    "red": ("b3261e", "a12a2a", "c43c32"),
    "green": ("3f7d45", "2f6b4f", "6a9a5b"),
    "dark green": ("1f4d33", "27563a", "2d5f2d"),
    "blue": ("2f5fa8", "3a78b5", "27497d"),
    "navy": ("1f2f55", "24365f"),
    "light blue": ("8fb8d8", "a3c6de", "7fb0c9"),
    "yellow": ("e3b72e", "e8c84d", "d9a520"),
    "orange": ("d9702a", "e0823c", "c9601f"),
    "pink": ("d98a9e", "e3a5b3", "c97a8e"),
    "purple": ("6f4a8a", "7d5a9a", "5b3f78"),
    "turquoise": ("3aa39f", "2f8f93", "58b5ad"),
}
_WOODS = (("brown", 4.0), ("light brown", 4.0), ("beige", 2.0), ("white", 2.5), ("black", 1.0))
_FABRICS = (
    "gray", "beige", "blue", "navy", "green", "dark green", "red", "brown", "white",
    "light blue", "turquoise", "orange", "yellow", "pink", "purple", "black",
)  # fmt: skip
_CALM = ("gray", "beige", "white", "light blue", "brown", "navy", "green")
_VIVID = ("red", "blue", "yellow", "orange", "green", "pink", "purple", "turquoise")


def _linear(shade: str) -> tuple[float, float, float]:
    red, green, blue = (int(shade[i : i + 2], 16) / 255.0 for i in (0, 2, 4))
    return (round(red**2.2, 4), round(green**2.2, 4), round(blue**2.2, 4))


_LINEAR = {name: tuple(_linear(s) for s in shades) for name, shades in _SHADES.items()}
COLOR_NAMES = tuple(_SHADES)
"""Every colour word an object can carry."""


def exact(name: str, material: int = Material.PLAIN, gain: float = 1.0) -> Paint:
    """The first shade of a colour, made darker or lighter by `gain`."""
    red, green, blue = _LINEAR[name][0]
    return Paint(
        name, (min(red * gain, 1.0), min(green * gain, 1.0), min(blue * gain, 1.0)), material
    )


def paint(dice: Dice, name: str, material: int = Material.PLAIN) -> Paint:
    """A random shade of a colour."""
    gain = dice.uniform(0.85, 1.12)
    red, green, blue = dice.pick(_LINEAR[name])
    rgb = (min(red * gain, 1.0), min(green * gain, 1.0), min(blue * gain, 1.0))
    return Paint(name, rgb, material)


def toned(base: Paint, gain: float, material: int | None = None) -> Paint:
    """The same colour, darker (gain < 1) or lighter, perhaps of another material."""
    red, green, blue = base.rgb
    rgb = (min(red * gain, 1.0), min(green * gain, 1.0), min(blue * gain, 1.0))
    return Paint(base.name, rgb, base.material if material is None else material)


def wood(dice: Dice) -> Paint:
    """Wood: boards with a grain, plain veneer, or painted white or black."""
    name = dice.weighted(_WOODS)
    is_painted = name in ("white", "black") or dice.chance(0.4)
    return paint(dice, name, Material.PLAIN if is_painted else Material.WOOD)


def fabric(dice: Dice) -> Paint:
    """Cloth of any colour."""
    return paint(dice, dice.pick(_FABRICS), Material.FABRIC)


def calm_fabric(dice: Dice) -> Paint:
    """Cloth of a quiet colour, as bedding and curtains have."""
    return paint(dice, dice.pick(_CALM), Material.FABRIC)


def vivid(dice: Dice, material: int = Material.PLAIN) -> Paint:
    """A strong colour."""
    return paint(dice, dice.pick(_VIVID), material)


WHITE = exact("white")
BLACK = exact("black")
STEEL = exact("silver", Material.METAL)
CHROME = exact("silver", Material.METAL, 1.25)
DARK_METAL = exact("black", Material.METAL)
SCREEN = Paint("black", (0.02, 0.03, 0.05), Material.SCREEN)
GLOW = Paint("white", (1.0, 0.95, 0.84))
