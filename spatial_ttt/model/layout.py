"""Where the visual slots lie in a piece of the token sequence, and every token's position.

A layout is a tuple of runs kept on the host, so a layer knows without asking the device which
tokens are determined. A slot is one pair of frames, h x w vision tokens in row order; consecutive
slots belong to one video until an END run says that it is over. An image is a video of one slot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple, overload

import torch
from torch import Tensor

from spatial_ttt.errors import VideoError


class RunKind(IntEnum):
    """What a run of tokens is."""

    TEXT = 0
    SLOT = 1
    END = 2  # zero tokens: the open video is over


class Run(NamedTuple):
    """`length` neighbouring tokens of one kind; a slot may be cut, then `start` says where it goes on."""

    kind: RunKind
    length: int
    grid: tuple[int, int] = (0, 0)  # (h, w) vision tokens of the whole slot
    start: int = 0  # index of the first token inside its slot

    @property
    def is_complete(self) -> bool:
        """The run ends its slot."""
        return self.start + self.length == self.grid[0] * self.grid[1]


Layout = tuple[Run, ...]


class UnevenRows(NamedTuple):
    """Whole samples of different layouts as the rows of a batch, each padded by text to `length` tokens."""

    length: int
    flat: Layout  # of all rows, one behind the other; none leaves a video open


AnyLayout = Layout | UnevenRows
"""Of a batch: what all rows have in common, or each its own."""

END = Run(RunKind.END, 0)


def text(length: int) -> Run:
    """A run of text tokens."""
    return Run(RunKind.TEXT, length)


def slot(height: int, width: int) -> Run:
    """One whole slot of height x width vision tokens."""
    return Run(RunKind.SLOT, height * width, (height, width))


def num_tokens(layout: Layout) -> int:
    """Tokens of all runs."""
    return sum(run.length for run in layout)


def uneven_rows(layouts: Sequence[Layout], length: int = 0) -> UnevenRows:
    """Whole samples beside each other, as long as the longest or longer; their videos are over, whether they say so
    or not."""
    length = max(length, *(num_tokens(layout) for layout in layouts))
    parts: list[Layout] = []
    for layout in layouts:
        spare = length - num_tokens(layout)
        parts += [layout, (END, text(spare)) if spare else (END,)]
    return UnevenRows(length, join_all(parts))


def _runs(layout: AnyLayout) -> Layout:
    if isinstance(layout, UnevenRows):
        raise VideoError(
            "rows of different layouts are whole samples, which cannot be cut and which nothing precedes or follows; "
            "give samples that come in pieces a batch each"
        )
    return layout


def join(first: AnyLayout, second: AnyLayout) -> Layout:
    """Concatenate, mending a slot or a text that was cut at the seam."""
    first, second = _runs(first), _runs(second)
    if not first or not second:
        return first or second
    a, b = first[-1], second[0]
    if a.kind == b.kind == RunKind.TEXT:
        return (*first[:-1], text(a.length + b.length), *second[1:])
    if a.kind == RunKind.SLOT and b.kind == RunKind.SLOT and not a.is_complete:
        if b.grid != a.grid or b.start != a.start + a.length:
            raise VideoError(
                f"a slot of {a.grid[0]}x{a.grid[1]} tokens was cut after token {a.start + a.length}, but the next "
                f"piece starts at token {b.start} of a {b.grid[0]}x{b.grid[1]} slot; send the rest first"
            )
        return (*first[:-1], a._replace(length=a.length + b.length), *second[1:])
    return (*first, *second)


@overload
def split(layout: Layout, at: int) -> tuple[Layout, Layout]: ...
@overload
def split(layout: UnevenRows, at: int) -> tuple[UnevenRows, Layout]: ...
def split(layout: AnyLayout, at: int) -> tuple[AnyLayout, Layout]:
    """The runs of the first `at` tokens, and the rest; an END right at the border goes to the front."""
    if isinstance(layout, UnevenRows) and at == layout.length:
        return layout, ()
    layout, front = _runs(layout), list[Run]()
    for i, run in enumerate(layout):
        if run.length > at:
            if not at:
                return tuple(front), layout[i:]
            shift = at if run.kind == RunKind.SLOT else 0
            rest = run._replace(length=run.length - at, start=run.start + shift)
            return (*front, run._replace(length=at)), (rest, *layout[i + 1 :])
        front.append(run)
        at -= run.length
    return tuple(front), ()


def cut(layout: AnyLayout, start: int, stop: int) -> Layout:
    """The runs of tokens start..stop-1; an END belongs to the piece that holds the token before it."""
    front, _ = split(_runs(layout), stop)
    return split(front, start)[1] if start else front


def join_all(layouts: Iterable[Layout]) -> Layout:
    """Concatenate many layouts."""
    whole: Layout = ()
    for layout in layouts:
        whole = join(whole, layout)
    return whole


def positions(layout: Layout, start: int, device: torch.device | str = "cpu") -> tuple[Tensor, int]:
    """(time, row, column) positions [3, L] of a layout whose first token has position `start`.

    Text advances all three axes by one; token (row, col) of a slot that begins at p has
    (p, p + row, p + col), and the next text token p + max(h, w) (Qwen3-VL's interleaved mRoPE).
    A piece that starts inside a slot takes the slot's own p as `start`. Returns the position of the next token too:
    the slot's p again when the last slot is cut.
    """
    offsets, length = _offsets(layout, torch.device(device))
    return offsets + start, start + length


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # else the kept tensors could not be used in training
def _offsets(layout: Layout, device: torch.device) -> tuple[Tensor, int]:
    """The same from position 0; kept, since patterns repeat and a copy to a device makes the host wait."""
    parts, start = [], 0
    for run in layout:
        if run.kind == RunKind.TEXT:
            parts.append(torch.arange(start, start + run.length).expand(3, -1))
            start += run.length
        elif run.kind == RunKind.SLOT:
            index = torch.arange(run.start, run.start + run.length)
            row, col = index // run.grid[1], index % run.grid[1]
            parts.append(torch.stack((torch.zeros_like(row), row, col)) + start)
            start += max(run.grid) if run.is_complete else 0
    whole = torch.cat(parts, dim=1) if parts else torch.zeros(3, 0, dtype=torch.long)
    return whole.to(device), start


class VisionIds(NamedTuple):
    """Token ids that stand for vision tokens."""

    image: int
    video: int


def layout_of_ids(
    ids: Sequence[int], grids: Sequence[tuple[int, int, int]], vision: VisionIds
) -> Layout:
    """The layout of one whole sequence of token ids.

    `grids` lists (slots, h, w) in vision tokens of each video or image, in the order they occur.
    Raises VideoError when the placeholders do not add up to the grids.
    """
    queue = [(h, w, t == k + 1) for t, h, w in grids for k in range(t)]
    runs: list[Run] = []
    at, length = 0, len(ids)
    while at < length:
        is_vision = ids[at] == vision.video or ids[at] == vision.image
        stop = at
        while (
            stop < length and (ids[stop] == vision.video or ids[stop] == vision.image) == is_vision
        ):
            stop += 1
        if not is_vision:
            runs.append(text(stop - at))
        at = stop if not is_vision else _take_slots(ids, at, stop, queue, runs)
    if queue:
        raise VideoError(
            f"the video grids hold {len(queue)} more slots than the prompt has placeholders for; "
            f"got grids {[tuple(g) for g in grids]}"
        )
    return tuple(runs)


def _take_slots(
    ids: Sequence[int], at: int, stop: int, queue: list[tuple[int, int, bool]], runs: list[Run]
) -> int:
    while at < stop:
        if not queue:
            raise VideoError(
                f"the prompt has {stop - at} vision placeholders that no video grid accounts for"
            )
        height, width, is_last = queue.pop(0)
        if at + height * width > stop:
            raise VideoError(
                f"a slot of {height}x{width} = {height * width} tokens meets only {stop - at} placeholders at "
                f"token {at}; the grid and the prompt disagree"
            )
        runs.append(slot(height, width))
        if is_last:
            runs.append(END)
        at += height * width
    return at
