"""The frames of a training sample: chosen by their true times, decoded once, sized for the model."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from spatial_ttt.errors import VideoError
from spatial_ttt.processor import FRAMES_PER_SLOT, Processor
from spatial_ttt.train.run_config import FramesConfig
from spatial_ttt.video.convert import RgbConverter
from spatial_ttt.video.decode import Target, decode_file, open_video, public_name
from spatial_ttt.video.options import ReadOptions, SourceStats
from spatial_ttt.video.sampling import pick, sample_fps, uniform_indices
from spatial_ttt.video.stills import read_image

_SLACK = 1e-6  # s
_OPTIONS = ReadOptions()


class Watched(NamedTuple):
    """A video or an image as the model will see it."""

    frames: Tensor  # uint8 [2 S, H, W, 3] at the model's size, on the CPU
    times: tuple[float, ...]  # s, of each slot


def watch_video(
    media: Path | bytes, config: FramesConfig, processor: Processor, until: float | None
) -> Watched:
    """Frames of a video up to second `until`; raises VideoError where it cannot be read."""
    target: Target = media if isinstance(media, bytes) else str(media)
    times = frame_times(target)
    indices = choose(times, config, until)
    convert = RgbConverter(None)
    pictures = pick(decode_file(target, _OPTIONS, SourceStats()), indices)
    shown = [(convert(picture.content), picture.time) for picture in pictures]
    if len(shown) != len(set(indices)):
        raise VideoError(
            f"{public_name(target)} is damaged: {len(shown)} of {len(indices)} wanted frames were decoded"
        )
    shown *= len(indices) // len(shown)  # a lone frame fills its slot twice
    return _watched([pixels for pixels, _ in shown], [time for _, time in shown], processor)


def watch_image(media: Path | bytes, processor: Processor) -> Watched:
    """An image as one slot of two equal frames."""
    source: Any = io.BytesIO(media) if isinstance(media, bytes) else media
    return _watched([read_image(source)] * FRAMES_PER_SLOT, [0.0] * FRAMES_PER_SLOT, processor)


def _watched(pixels: list[Any], times: list[float], processor: Processor) -> Watched:
    frames = processor.fit(torch.from_numpy(np.stack(pixels)))
    pairs = zip(times[::2], times[1::2], strict=True)
    return Watched(frames, tuple((first + second) / 2 for first, second in pairs))


def frame_times(target: Target) -> list[float]:
    """Seconds of every frame since the first, read off the packets: nothing is decoded."""
    container, stream = open_video(target, _OPTIONS)
    with container:
        packets = [p for p in container.demux(stream) if p.size]
        declared = stream.frames
        named = "mp4" in container.format.name
    if named and len(packets) < declared:
        raise VideoError(
            f"{public_name(target)} is cut off: {len(packets)} of its {declared} frames are there"
        )
    shown = [p for p in packets if not p.is_discard]
    if any(p.pts is None for p in shown) or not shown:
        raise VideoError(f"{public_name(target)} has no frames with times; convert it to mp4")
    seconds = sorted(float(p.pts * p.time_base) for p in shown)
    return [second - seconds[0] for second in seconds]


def choose(times: Sequence[float], config: FramesConfig, until: float | None) -> list[int]:
    """Indices of the frames to watch: an even number of them, a lone frame twice.

    At `fps` where that gives least..most frames, else evenly spread over what may be seen.
    """
    seen = len(times)
    if until is not None:
        seen = max(1, sum(time <= until + _SLACK for time in times))
    if config.fps is None:
        chosen = uniform_indices(seen, config.most)
    else:
        chosen = list(sample_fps(range(seen), config.fps, lambda index: times[index]))
        if not config.least <= len(chosen) <= config.most:
            count = min(max(len(chosen), config.least), config.most)
            chosen = uniform_indices(seen, count)
    if len(chosen) == 1:
        return [chosen[0], chosen[0]]
    return chosen[: len(chosen) - len(chosen) % FRAMES_PER_SLOT]


def most_slots(config: FramesConfig, until: float | None) -> int:
    """More slots than `choose` gives for a video watched up to `until`."""
    frames = config.most
    if config.fps is not None and until is not None:
        frames = min(frames, max(config.least, int(until * config.fps) + 2))
    return max(1, -(-frames // FRAMES_PER_SLOT))
