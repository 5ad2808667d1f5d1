"""The frames a clip is watched by: opened, sampled, sized and stamped as the run says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from spatial_ttt.eval.benchmarks.item import Clip, FrameSampling
from spatial_ttt.eval.benchmarks.media import media_of
from spatial_ttt.eval.profiles import FrameTimes
from spatial_ttt.video.frame import Frame
from spatial_ttt.video.options import ReadOptions
from spatial_ttt.video.sources import open_source

FAKE_FPS = 24.0
"""What the authors' script takes every list of sampled frames for."""


def open_clip(clip: Clip, sampling: FrameSampling, frame_times: FrameTimes) -> Iterator[Frame]:
    """The clip's frames in order, decoded as they are asked for."""
    size = sampling.size
    if clip.is_images:
        paths = [path for path in clip.paths for _ in range(2)]  # one slot holds two frames
        times = tuple(float(index) for index in range(len(paths)))
        source = open_source(paths, size=size, options=ReadOptions(times=times))
    else:
        source = open_source(
            media_of(clip.paths[0]), fps=sampling.fps, num_frames=sampling.num_frames, size=size
        )
    with source:
        if frame_times == "true":
            yield from source
        else:
            for index, frame in enumerate(source):
                yield Frame(frame.pixels, index / FAKE_FPS)


def in_groups(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    """Runs of `size` frames, the last one possibly shorter."""
    iterator = iter(frames)
    while group := list(islice(iterator, size)):
        yield group


def middle_frame(frames: Iterable[Frame], num_frames: int) -> list[Frame]:
    """The frame in the middle of the first `num_frames`, twice, so that it fills a slot."""
    chosen = next(islice(iter(frames), num_frames // 2, None))
    return [Frame(chosen.pixels, 0.0), Frame(chosen.pixels, 0.0)]


def shifted(frames: Iterable[Frame], offset_s: float) -> Iterator[Frame]:
    """The same pictures, seen `offset_s` seconds later."""
    return (Frame(frame.pixels, frame.time + offset_s) for frame in frames)
