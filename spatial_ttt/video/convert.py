"""From a decoded picture to an RGB array: colour, size, rotation; one reformatter per source."""

from __future__ import annotations

from typing import Any

import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image

from spatial_ttt.errors import VideoError
from spatial_ttt.video.frame import Pixels

Size = tuple[int, int]
"""(height, width) in pixels."""

_RESIZE = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


class RgbConverter:
    """Turns PyAV frames into uint8 [H, W, 3], upright, of the wanted size."""

    def __init__(self, size: Size | None) -> None:
        self._reformatter = VideoReformatter()
        self._size = size

    def __call__(self, picture: Any) -> Pixels:
        quarter_turns = round(picture.rotation / 90) % 4  # counter-clockwise, phones write it
        height, width = self._size or (None, None)
        if quarter_turns % 2:
            height, width = width, height
        rgb = self._reformatter.reformat(
            picture, width=width, height=height, format="rgb24", interpolation=_RESIZE
        )
        pixels: Pixels = np.asarray(rgb.to_ndarray(), dtype=np.uint8)
        if quarter_turns:
            pixels = np.ascontiguousarray(np.rot90(pixels, quarter_turns))
        return pixels


def resize_pixels(pixels: Pixels, size: Size | None) -> Pixels:
    """`pixels` [H, W, 3] at (height, width) `size`, bicubic; unchanged if it is already so."""
    if size is None or pixels.shape[:2] == tuple(size):
        return pixels
    image = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(image)


def check_size(size: Size | None) -> None:
    """Raise VideoError unless `size` is None or two positive numbers."""
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise VideoError(f"size is (height, width) in pixels, both at least 1; got {size}")
