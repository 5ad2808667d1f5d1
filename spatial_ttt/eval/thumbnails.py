"""Small pictures of a clip for the report: a few moments, found by seeking, as inline JPEG."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from spatial_ttt.errors import SpatialTTTError
from spatial_ttt.eval.benchmarks.media import media_of
from spatial_ttt.video.stills import IMAGE_SUFFIXES, read_image

_LOG = logging.getLogger(__name__)
WIDTH = 168


def data_urls(paths: Sequence[str], *, count: int = 4, until_s: float | None = None) -> list[str]:
    """Up to `count` moments of a clip before `until_s`; none when its files are not here."""
    if not paths or not all(_is_reachable(Path(path)) for path in paths):
        return []
    try:
        if Path(paths[0]).suffix.lower() in IMAGE_SUFFIXES:
            pictures = [Image.fromarray(read_image(Path(path))) for path in paths[:count]]
        else:
            pictures = _moments(Path(paths[0]), count, until_s)
    except SpatialTTTError as error:  # a report is worth having without its pictures
        _LOG.warning("no pictures of %s: %s", paths[0], error)
        return []
    return [_data_url(picture) for picture in pictures]


def _moments(path: Path, count: int, until_s: float | None) -> list[Image.Image]:
    """The first picture at or after each of `count` evenly spread times, by seeking."""
    import av  # decoding is needed for reports only

    media = media_of(path)
    target = io.BytesIO(media) if isinstance(media, bytes) else str(media)
    pictures = []
    try:
        with av.open(target) as container:
            length = (container.duration or 0) / av.time_base
            end = length if until_s is None else min(until_s, length)
            for time in np.linspace(0, end, count, endpoint=False) + end / (2 * count):
                container.seek(int(time * av.time_base), backward=True)
                for picture in container.decode(video=0):
                    if picture.time is not None and picture.time >= time - 0.5:
                        pictures.append(picture.to_image())
                        break
    except (av.FFmpegError, OSError) as error:
        _LOG.warning("no pictures of %s: %s", path, error)
    return pictures


def _data_url(picture: Image.Image) -> str:
    height = max(1, round(picture.height * WIDTH / picture.width))
    out = io.BytesIO()
    picture.convert("RGB").resize((WIDTH, height)).save(out, format="JPEG", quality=70)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")


def _is_reachable(path: Path) -> bool:
    return path.is_file() or any(parent.is_file() for parent in path.parents)
