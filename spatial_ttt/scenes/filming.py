"""A camera's walk filmed once: clips of several sizes and what was visible, in one pass.

stack of frames drawn -> pixels counted per object -> every size encoded -> next stack
Memory holds one stack of frames, however long the walk.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from spatial_ttt.scenes.renderer import Layers
from spatial_ttt.scenes.scene import Camera, Parts, Visibility
from spatial_ttt.scenes.views import count_pixels
from spatial_ttt.video.writing import EncodeOptions, Mp4Writer, YuvConverter

FRAMES_PER_PASS = 48
Size = tuple[int, int]
"""(width, height) in pixels, as cameras and users of clips name it."""


class Draws(Protocol):
    """What filming needs of a renderer."""

    def render(self, parts: Parts, camera: Camera, frames: slice) -> Layers: ...


@dataclass(frozen=True, slots=True)
class Film:
    """The clips of one walk and what they show."""

    clips: tuple[bytes, ...]  # mp4, one per size asked for
    visibility: Visibility


def film(
    renderer: Draws,
    parts: Parts,
    camera: Camera,
    sizes: tuple[Size, ...],
    *,
    options: EncodeOptions,
) -> Film:
    """Film `parts` along `camera`: an mp4 in memory per size, scaled from the drawn frames."""
    targets = [io.BytesIO() for _ in sizes]
    writers = [
        Mp4Writer(target, size=(height, width), options=options)
        for target, (width, height) in zip(targets, sizes, strict=True)
    ]

    visibility = film_into(writers, renderer, parts, camera)
    for writer in writers:
        writer.close()
    return Film(tuple(target.getvalue() for target in targets), visibility)


def film_into(
    writers: Sequence[Mp4Writer],
    renderer: Draws,
    parts: Parts,
    camera: Camera,
    start_s: float = 0.0,
) -> Visibility:
    """Film `parts` along `camera` into open writers, times counted from `start_s`."""
    convert = YuvConverter()

    def encode(layers: Layers, times: list[float]) -> None:
        for pixels, time in zip(layers.rgb, times, strict=True):
            picture = convert(pixels)
            for writer in writers:
                writer.add_picture(picture, start_s + time)

    return watch(renderer, parts, camera, encode)


def watch(
    renderer: Draws,
    parts: Parts,
    camera: Camera,
    use: Callable[[Layers, list[float]], None],
) -> Visibility:
    """Draw the walk pass by pass, hand each to `use` with its times, and count visible pixels."""
    object_ids = np.unique(parts.object_id[parts.object_id > 0]).astype(np.int32)
    counts = []
    for begin in range(0, len(camera.times), FRAMES_PER_PASS):
        frames = slice(begin, begin + FRAMES_PER_PASS)
        layers = renderer.render(parts, camera, frames)
        counts.append(count_pixels(layers.object_id, object_ids))
        use(layers, camera.times[frames].tolist())
    return Visibility(object_ids, np.concatenate(counts), camera.times)
