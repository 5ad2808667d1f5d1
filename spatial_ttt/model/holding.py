"""Which tokens of a stream are determined, and which must wait for the next slot.

A centred convolution reads one slot ahead, so a TTT layer holds back its last slot (and the text
after it) until the next slot is complete or the video is over. A plan says, for the tokens a layer
has at hand, how many it may release and which slots it convolves. Plans depend on layouts only, so
each pattern is planned once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from spatial_ttt.errors import VideoError
from spatial_ttt.model.configuration import Convolution
from spatial_ttt.model.layout import AnyLayout, Layout, RunKind, UnevenRows, num_tokens

Grid = tuple[int, int]


class Stretch(NamedTuple):
    """Slots of one video that are released together (text may lie between them)."""

    grid: Grid
    starts: tuple[int, ...]  # first token of each slot, in the queue
    follows: bool  # slots of the same video were released before: their context is in the state
    next_start: int | None  # first token of the slot that is read ahead; None: the video ends
    stays_open: bool  # the video goes on, so context must be kept

    @property
    def spacing(self) -> int:
        """Tokens from slot to slot if they are all equally far apart (0: they are not)."""
        every = self.starts if self.next_start is None else (*self.starts, self.next_start)
        apart = {b - a for a, b in pairwise(every)} or {self.grid[0] * self.grid[1]}
        return apart.pop() if len(apart) == 1 else 0


class Plan(NamedTuple):
    """What a layer does with the tokens at hand."""

    released: int  # tokens, from the front
    stretches: tuple[Stretch, ...]
    keeps_context: bool  # the context in the state belongs to a video that is still open, untouched
    is_flat: bool = False  # stretches count tokens through all rows, one behind the other


@dataclass
class _Video:
    grid: Grid
    follows: bool
    starts: list[int] = field(default_factory=list)


@lru_cache(maxsize=4096)
def plan(queue: AnyLayout, context_grid: Grid | None, convolution: Convolution) -> Plan:
    """Plan for the runs at hand. `context_grid` is the grid of the open video's released slots, if any.

    Rows of different layouts are whole: all their tokens are released.

    Raises VideoError for text or an end inside a slot and for a frame size that changes in a video.
    """
    if isinstance(queue, UnevenRows):
        if context_grid:
            raise VideoError("a video is open, so rows of different layouts cannot follow; end it")
        whole = plan(queue.flat, None, convolution)
        return whole._replace(released=queue.length, is_flat=True)
    if convolution == "none":
        return Plan(num_tokens(queue), (), False)
    closed, current, waiting = _group(queue, context_grid)
    stretches = [_stretch(video, video.starts, None, False) for video in closed if video.starts]
    held = waiting
    if current is not None and current.starts:
        ready, ahead = current.starts, None
        if convolution == "centred":
            ready, ahead = current.starts[:-1], current.starts[-1]
            held = ahead
        if ready:
            stretches.append(_stretch(current, ready, ahead, True))
    keeps = current is not None and current.follows and not (stretches and stretches[-1].stays_open)
    return Plan(num_tokens(queue) if held is None else held, tuple(stretches), keeps)


def _stretch(video: _Video, starts: list[int], ahead: int | None, stays_open: bool) -> Stretch:
    return Stretch(video.grid, tuple(starts), video.follows, ahead, stays_open)


def _group(
    queue: Layout, context_grid: Grid | None
) -> tuple[list[_Video], _Video | None, int | None]:
    """Videos that end in the queue, the one left open, and where an incomplete slot begins."""
    closed: list[_Video] = []
    current = _Video(context_grid, follows=True) if context_grid else None
    at, waiting = 0, None
    for run in queue:
        if waiting is not None:
            what = "the video was declared over" if run.kind == RunKind.END else "text arrived"
            raise VideoError(f"{what} in the middle of a slot; send the rest of the slot first")
        if run.kind == RunKind.END:
            closed.extend([current] if current else [])
            current = None
        elif run.kind == RunKind.SLOT:
            current = current or _Video(run.grid, follows=False)
            if current.grid != run.grid:
                raise VideoError(
                    f"a slot of {run.grid[0]}x{run.grid[1]} tokens follows slots of {current.grid[0]}x"
                    f"{current.grid[1]} in the same video; end the video before the frame size changes"
                )
            if run.is_complete:
                current.starts.append(at)
            else:
                waiting = at
        at += run.length
    return closed, current, waiting
