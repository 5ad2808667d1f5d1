"""A sample as the model reads it: token ids, which of them are trained, and where its slots lie.

The words are those of a `StreamingSession`, cut into tokens at the same places, so that training and
use see the same stream. Only answers and the token that ends them are targets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from spatial_ttt.data_format import MARKERS, Sample
from spatial_ttt.errors import DataError
from spatial_ttt.model.layout import END, Layout, join_all, slot, text
from spatial_ttt.processor import ANSWER_PREFIX, USER_PREFIX, VISION_END, VISION_START, Processor

_MARKER = re.compile("|".join(map(re.escape, MARKERS.values())))
IMAGE_PAD = "<|image_pad|>"
LONGEST_STAMP = "<99999.9 seconds>"


class Medium(NamedTuple):
    """What a marker stands for."""

    times: tuple[float, ...]  # s, of each slot; an image has one
    grid: tuple[int, int]  # vision tokens of a slot, (h, w)
    is_image: bool


class Encoded(NamedTuple):
    """Token ids of one sample."""

    ids: list[int]
    is_target: list[bool]  # the token itself is learned (predicted from those before it)
    layout: Layout

    @property
    def num_targets(self) -> int:
        """Tokens with a loss."""
        return sum(self.is_target)


def encode(sample: Sample, media: Sequence[Medium], processor: Processor) -> Encoded:
    """Ids, targets and layout; `media` in the order of the markers."""
    ids: list[int] = []
    is_target: list[bool] = []
    layouts: list[Layout] = []
    queue = iter(media)

    def add(piece: list[int], layout: Layout, target: bool = False) -> None:
        ids.extend(piece)
        is_target.extend([target] * len(piece))
        layouts.append(layout)

    def say(content: str, target: bool = False) -> None:
        piece = processor.encode(content)
        add(piece, (text(len(piece)),), target)

    for number, turn in enumerate(sample.turns):
        if turn.speaker == "gpt":
            piece = processor.answer_ids(turn.text)
            add(piece, (text(len(piece)),), target=True)
            continue
        say(USER_PREFIX if not number else "\n" + USER_PREFIX)
        parts = list(_parts(turn.text))
        for content, is_marker in parts[:-1]:
            if is_marker:
                for piece, layout in _medium(next(queue), processor):
                    add(piece, layout)
            else:
                say(content)
        say(parts[-1][0] + ANSWER_PREFIX)
    if not any(is_target):
        raise DataError(f"{name_of(sample)} has no gpt turn: there is nothing to learn from it")
    return Encoded(ids, is_target, join_all(layouts))


def _parts(content: str) -> Iterator[tuple[str, bool]]:
    """Texts and markers of a human turn, the last one a (possibly empty) text.

    Blanks around markers go: a session's stream has none.
    """
    at = 0
    for match in _MARKER.finditer(content):
        before = content[at : match.start()].strip()
        if before:
            yield before, False
        yield match[0], True
        at = match.end()
    yield content[at:].strip(), False


def _medium(medium: Medium, processor: Processor) -> Iterator[tuple[list[int], Layout]]:
    """A video's slots with their times, or an image between its marks."""
    height, width = medium.grid
    if medium.is_image:
        pads = processor.encode(IMAGE_PAD) * (height * width)
        ids = [*processor.encode(VISION_START), *pads, *processor.encode(VISION_END)]
        yield ids, (text(1), slot(height, width), END, text(1))
        return
    for time in medium.times:
        yield processor.slot_ids(time, medium.grid)
    yield [], (END,)


def media_order(sample: Sample) -> list[tuple[str, bool]]:
    """(path, is an image) of every marker, in order."""
    videos, images = iter(sample.videos), iter(sample.images)
    order = []
    for turn in sample.turns:
        for match in _MARKER.finditer(turn.text):
            is_image = match[0] == MARKERS["image"]
            order.append((next(images if is_image else videos), is_image))
    return order


def most_tokens(sample: Sample, most_slots: int, slot_tokens: int, stamp_tokens: int) -> int:
    """An upper bound of a sample's length that needs no video and no tokenizer.

    No text has more tokens than bytes; `stamp_tokens` are those of the longest time stamp and the marks.
    """
    words = sum(len(turn.text.encode()) for turn in sample.turns)
    frame = 24 * len(sample.turns)  # chat marks, in tokens of any of our tokenizers
    slots = len(sample.videos) * most_slots + len(sample.images)
    return words + frame + slots * (slot_tokens + stamp_tokens)


def name_of(sample: Sample) -> str:
    """How messages name a sample."""
    if sample.id:
        return f"sample {sample.id!r}"
    paths = (*sample.videos, *sample.images)
    return f"the sample about {paths[0]}" if paths else f"the sample {sample.turns[0].text[:40]!r}"
