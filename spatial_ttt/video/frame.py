"""One picture of a stream and the time it was seen; the checks every source applies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_ttt.errors import VideoError

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture."""

    pixels: Pixels  # [H, W, 3] RGB
    time: float  # s since the first frame of the stream


def check_frame(frame: Frame) -> Frame:
    """Return `frame` if it is a proper picture at a proper time; raise VideoError otherwise."""
    check_pixels(frame.pixels)
    if not math.isfinite(frame.time) or frame.time < 0:
        raise VideoError(
            f"frame at time {frame.time}: times are finite seconds from 0 on; "
            "give the time since the stream began"
        )
    return frame


def check_pixels(pixels: Any) -> Pixels:
    """Return `pixels` if it is uint8 [H, W, 3]; raise VideoError that says what it is instead."""
    if not isinstance(pixels, np.ndarray):
        raise VideoError(f"pixels are a {type(pixels).__name__}, not a NumPy array uint8 [H, W, 3]")
    if pixels.dtype != np.uint8:
        if np.issubdtype(pixels.dtype, np.floating) and np.isnan(pixels).any():
            raise VideoError("frame holds NaN; a frame is uint8 [H, W, 3], every value known")
        raise VideoError(
            f"frame has dtype {pixels.dtype}, not uint8; open_source(array) converts floats in 0..1"
        )
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise VideoError(f"frame has shape {list(pixels.shape)}, not [height, width, 3]")
    return pixels
