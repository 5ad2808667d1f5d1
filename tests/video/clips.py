"""Real files for the video tests: small pictures whose content tells their index."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 48, 64


def picture(index: int, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """A picture with a bright square at a place given by `index`, over a fixed gradient."""
    ramp = np.linspace(20, 120, width, dtype=np.uint8)
    pixels = np.repeat(np.tile(ramp, (height, 1))[:, :, None], 3, axis=2)
    pixels[..., 2] = 40
    column = (index * 7) % (width - 8)
    pixels[8:24, column : column + 8] = (250, 30, 30)
    return pixels


def noise(index: int, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """A picture that costs many bytes, so that damage in the file hits frames and not headers."""
    rng = np.random.default_rng(index)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(
    path: Path,
    times: list[float],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    make=picture,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write `path` by plain PyAV (not by our writer) with one picture per time in seconds."""
    base = Fraction(1, 1000) if codec != "gif" else Fraction(1, 100)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=30, options=options or {})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
        stream.time_base = stream.codec_context.time_base = base
        stream.codec_context.gop_size = 10
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(make(index), "rgb24")
            frame = frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base = round(time / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
