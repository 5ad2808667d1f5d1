"""Which frames of a video are looked at: at a rate, or a fixed number; true times are kept.

`sample_fps` works on endless streams: it looks one frame ahead and no further, so a stream cut
anywhere gives the frames of one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from spatial_ttt.errors import VideoError

T = TypeVar("T")

_TIME_SLACK = 1e-6
"""Two times so many seconds apart are one: containers round to microseconds."""


def sample_fps(items: Iterable[T], fps: float, time: Callable[[T], float]) -> Iterator[T]:
    """Yield for each k = 0, 1, ... the item nearest to (first time + k / fps), each item once.

    Between two equally near items the earlier wins. Items keep their own times; where the source is
    slower than `fps` nothing is repeated. `items` come in order of time and may be endless.
    """
    if not fps > 0:
        raise VideoError(f"fps must be above 0, got {fps}")
    start: float | None = None
    target_index = 0
    previous: T | None = None
    previous_taken = False
    for item in items:
        now = time(item)
        if start is None:
            start = now
        item_taken = False
        while (target := start + target_index / fps) <= now + _TIME_SLACK:
            target_index += 1
            if previous is not None and target - time(previous) <= now - target + _TIME_SLACK:
                if not previous_taken:
                    previous_taken = True
                    yield previous
            else:
                item_taken = True
                # Every target up to now is nearer to this item than to the previous one.
                target_index = max(target_index, int((now - start) * fps + _TIME_SLACK) + 1)
        if item_taken:
            yield item
        previous, previous_taken = item, item_taken


def uniform_indices(total: int, num_frames: int) -> list[int]:
    """Indices of `num_frames` frames spread evenly over `total`, first and last included.

    As Qwen's processor does: rounded linspace. Asking for more than there are gives all of them.
    """
    if num_frames < 1:
        raise VideoError(f"num_frames must be at least 1, got {num_frames}")
    if total < 1:
        raise VideoError("the video has no frames to choose from")
    count = min(num_frames, total)
    indices: list[int] = np.linspace(0, total - 1, count).round().astype(int).tolist()
    return indices


def pick(items: Iterable[T], indices: Iterable[int]) -> Iterator[T]:
    """Yield the items at the given rising indices, and read no further than the last of them."""
    wanted = iter(indices)
    next_index = next(wanted, None)
    if next_index is None:
        return
    for index, item in enumerate(items):
        if index == next_index:
            yield item
            next_index = next(wanted, None)
            if next_index is None:
                return
