"""Draws docs/images/catalogue.jpg: one instance of every kind of thing a home can hold.

python scripts/draw_catalogue.py
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run from a plain checkout

from spatial_ttt.scenes.building import box_between  # noqa: E402
from spatial_ttt.scenes.catalogue import KINDS, make  # noqa: E402
from spatial_ttt.scenes.catalogue.palette import Material, Paint, exact  # noqa: E402
from spatial_ttt.scenes.dice import Dice  # noqa: E402
from spatial_ttt.scenes.homes import pack_parts  # noqa: E402
from spatial_ttt.scenes.renderer import Renderer  # noqa: E402
from spatial_ttt.scenes.scene import Camera, Parts  # noqa: E402
from spatial_ttt.scenes.space import FLOOR, Placed, block_of  # noqa: E402
from spatial_ttt.scenes.walk import poses  # noqa: E402

PICTURE = ROOT / "docs" / "images" / "catalogue.jpg"
WIDTH, HEIGHT, COLUMNS = 168, 126, 8


def main() -> None:
    """Write the picture."""
    with Renderer(WIDTH, HEIGHT, 2) as renderer:
        tiles = [_kind_tile(renderer, index) for index in range(len(KINDS))]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % COLUMNS)
    rows = [np.concatenate(tiles[at : at + COLUMNS], 1) for at in range(0, len(tiles), COLUMNS)]
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows, 0)).save(PICTURE, quality=82)


def _kind_tile(renderer: Renderer, index: int) -> NDArray[np.uint8]:
    """One instance on a floor before a wall."""
    thing = make(KINDS[index], Dice(3, index))
    width, depth, height = thing.size
    wall = Paint("white", (0.7, 0.68, 0.6), Material.WALL)
    stage = [
        box_between((-6, -6, -0.1), (6, 6, 0), exact("beige", Material.WOOD)),
        box_between((-6, depth / 2 + 0.02, 0), (6, depth / 2 + 0.2, 3.5), wall),
    ]
    block = block_of(thing, 0.0, 0.0, 0.0, 0.0)
    parts: Parts = pack_parts(stage, [Placed(thing, 0.0, 0.0, 0.0, 0.0, FLOOR, block, 0)])
    away = max(1.25 * max(width, depth, height), 0.55)
    x, y, z = -0.47 * away, -0.88 * away - depth / 2, height / 2 + 0.45 * away
    pitch = -math.atan2(z - height / 2, math.hypot(x, y))
    pose = poses(np.array([[x, y, z, math.atan2(-y, -x), pitch]]))
    lens = np.array([[0.9 * WIDTH, 0, WIDTH / 2], [0, 0.9 * WIDTH, HEIGHT / 2], [0, 0, 1.0]])
    return renderer.render(parts, Camera(WIDTH, HEIGHT, lens, pose, np.zeros(1))).rgb[0]


if __name__ == "__main__":
    main()
