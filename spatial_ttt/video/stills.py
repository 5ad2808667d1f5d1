"""Sources that carry no times of their own: image folders, lists of images, arrays and tensors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from spatial_ttt.errors import VideoError
from spatial_ttt.video.frame import Pixels
from spatial_ttt.video.options import ReadOptions

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff"})


def natural_key(path: Path) -> tuple[Any, ...]:
    """Sort key under which frame2 comes before frame10."""
    pieces = re.split(r"(\d+)", path.name)
    return tuple((int(piece), "") if piece.isdigit() else (-1, piece) for piece in pieces)


def list_images(folder: Path) -> list[Path]:
    """The images of a folder in natural order; VideoError if there is none."""
    images = sorted(
        (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES),
        key=natural_key,
    )
    if not images:
        raise VideoError(f"{folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return images


def read_image(path: Path) -> Pixels:
    """One image file as uint8 [H, W, 3], upright as its camera noted."""
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except FileNotFoundError as error:
        raise VideoError(f"{path} does not exist") from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise VideoError(f"{path} cannot be read as an image: {error}") from error


def as_clip(array: Any) -> NDArray[np.uint8]:
    """[T, H, W, 3] or [T, 3, H, W], NumPy or torch, uint8 or float 0..1 -> uint8 [T, H, W, 3]."""
    if hasattr(array, "detach"):  # a torch tensor, known by what it can do: torch stays unimported
        array = array.detach().cpu()
        array = (array.float() if array.is_floating_point() else array).numpy()
    clip = np.asarray(array)
    if clip.ndim != 4 or 3 not in (clip.shape[3], clip.shape[1]):
        raise VideoError(
            f"array has shape {list(clip.shape)}, not [frames, height, width, 3] or "
            "[frames, 3, height, width]"
        )
    if clip.shape[3] != 3:
        clip = clip.transpose(0, 2, 3, 1)
    if 0 in clip.shape[1:]:
        raise VideoError(f"array has shape {list(clip.shape)}: its frames have no pixels")
    if np.issubdtype(clip.dtype, np.floating):
        return _from_float(clip)
    if clip.dtype != np.uint8:
        raise VideoError(f"array has dtype {clip.dtype}, not uint8 or float in 0..1")
    return np.ascontiguousarray(clip)


def _from_float(clip: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    bad = ~np.isfinite(clip)
    if bad.any():
        first = int(np.flatnonzero(bad.any(axis=(1, 2, 3)))[0])
        raise VideoError(f"frame {first} holds NaN or infinity; every value must be in 0..1")
    if clip.size and (clip.min() < 0 or clip.max() > 1):
        raise VideoError(
            f"float frames must be in 0..1, got {clip.min():g}..{clip.max():g}; divide by 255?"
        )
    return np.ascontiguousarray((clip * 255).round().astype(np.uint8))


def still_times(count: int, fps: float | None, options: ReadOptions) -> Iterator[float]:
    """Seconds of `count` frames: `options.times`, or spaced by `options.input_fps` or `fps`."""
    if options.times is not None:
        if len(options.times) != count:
            raise VideoError(f"{len(options.times)} times for {count} frames; give one per frame")
        return iter(options.times)
    rate = options.input_fps or fps
    if rate is None and count == 1:
        return iter((0.0,))
    if rate is None:
        raise VideoError("images and arrays carry no times; give input_fps, times, or fps")
    return (index / rate for index in range(count))
