"""Pictures to look at without labels: chosen frames side by side, object ids and depth in colour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.scene import Visibility

Picture = NDArray[np.uint8]

_LABEL_HEIGHT = 18
_INK, _PAPER = (20, 20, 20), (255, 255, 255)


def lay_out(
    pictures: Sequence[Picture] | Picture,
    columns: int = 4,
    labels: Sequence[str] | None = None,
    gap: int = 4,
) -> Picture:
    """Pictures [H, W, 3] of one size in rows of `columns`, each with its label above if given."""
    shapes = sorted({tuple(picture.shape) for picture in pictures})
    if len(shapes) != 1 or columns < 1:
        raise SceneError(
            "pictures to lay out must be of one size, in at least one column, "
            f"got {len(pictures)} pictures of shapes {shapes} and {columns} columns"
        )
    if labels is not None and len(labels) != len(pictures):
        raise SceneError(f"got {len(labels)} labels for {len(pictures)} pictures, want as many")
    height, width = pictures[0].shape[:2]
    columns = min(columns, len(pictures))
    top = _LABEL_HEIGHT if labels is not None else 0
    step_x, step_y = width + gap, height + top + gap
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * step_x + gap, rows * step_y + gap), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for index, picture in enumerate(pictures):
        x, y = gap + index % columns * step_x, gap + index // columns * step_y
        if labels is not None:
            draw.text((x + 2, y), labels[index], _INK, font)
        sheet.paste(Image.fromarray(np.ascontiguousarray(picture)), (x, y + top))
    return np.asarray(sheet)


def choose_frames(visibility: Visibility, count: int, min_pixels: int = 1000) -> list[int]:
    """Up to `count` frames, in order, that together show most objects at `min_pixels` or more."""
    shown = visibility.pixels >= min_pixels
    found = np.zeros(shown.shape[1], np.bool_)
    chosen: list[int] = []
    while len(chosen) < min(count, len(shown)):
        gain = (shown & ~found).sum(1)
        if gain.max(initial=0) == 0:
            if not found.any():
                break
            found[:] = False  # all are found: show them once more from elsewhere
            shown[chosen] = False
            continue
        best = int(gain.argmax())
        chosen.append(best)
        found |= shown[best]
    return sorted(chosen)


def color_ids(object_id: NDArray[np.integer]) -> Picture:
    """A colour per object id, the same in every picture; the building is grey: [...] -> [..., 3]."""
    ids = np.arange(int(object_id.max(initial=0)) + 1)
    # Steps of the golden ratio spread hues evenly however many ids there are.
    hue = (ids * 0.618034)[:, None] + np.array([0.0, 1 / 3, 2 / 3])
    table = 0.55 + 0.4 * np.cos(2.0 * np.pi * hue)
    table *= np.where(ids % 3 == 0, 0.7, 1.0)[:, None]
    table[0] = 0.8
    return np.asarray(table * 255.0, np.uint8)[object_id]


def color_depth(depth: NDArray[np.floating], farthest: float = 8.0) -> Picture:
    """Near is light, `farthest` metres and nothing are dark: [...] -> [..., 3]."""
    shade = np.where(depth > 0.0, 1.0 - np.clip(depth / farthest, 0.0, 1.0), 0.0)
    return np.repeat(np.asarray(shade * 255.0, np.uint8)[..., None], 3, axis=-1)
