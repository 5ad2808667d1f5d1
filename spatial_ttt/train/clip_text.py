"""The words around a clip: the prefix every row of a batch shares, and the room it leaves for questions.

`<|im_start|>user\n`, per slot `<1.2 seconds>` `<|vision_start|>` pads `<|vision_end|>`, the video's end;
what follows is a question's own. Rates and slot counts fix the token counts, so rows of one
`ClipSpec` have one layout.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from spatial_ttt.errors import ConfigError
from spatial_ttt.model.layout import END, Layout, join_all, num_tokens, slot, text
from spatial_ttt.train.clip_types import ClipSpec

OPENING = "<|im_start|>user\n"


class Prefix(NamedTuple):
    """Token ids of everything before the question, their layout, and each slot's closing token."""

    ids: tuple[int, ...]
    layout: Layout
    slot_ends: tuple[int, ...]  # index of each slot's <|vision_end|>
    vision: tuple[int, ...] = ()  # indices of the vision tokens


def clip_prefix(tokenizer: Any, spec: ClipSpec) -> Prefix:
    """The prefix of a clip; `tokenizer` is a transformers one."""
    pad = tokenizer.convert_tokens_to_ids("<|video_pad|>")
    start, end = (
        tokenizer.convert_tokens_to_ids(f"<|vision_{side}|>") for side in ("start", "end")
    )
    height, width = spec.grid
    ids: list[int] = list(tokenizer.encode(OPENING, add_special_tokens=False))
    pieces: list[Layout] = [(text(len(ids)),)]
    ends = []
    for time in spec.slot_times:
        stamp = [*tokenizer.encode(f"<{time:.1f} seconds>", add_special_tokens=False), start]
        ids += [*stamp, *[pad] * (height * width), end]
        ends.append(len(ids) - 1)
        pieces += [(text(len(stamp)),), (slot(height, width),), (text(1),)]
    pieces.append((END,))
    vision = tuple(n for n, token in enumerate(ids) if token == pad)
    return Prefix(tuple(ids), join_all(pieces), tuple(ends), vision)


def blind_prefix(tokenizer: Any) -> Prefix:
    """The prefix of a question without a video."""
    ids = tuple(tokenizer.encode(OPENING, add_special_tokens=False))
    return Prefix(ids, (text(len(ids)),), ())


def room_for_branch(prefix: Prefix, chunk_size: int) -> int:
    """Tokens a question and its answer may have before they would fill the open chunk."""
    length = num_tokens(prefix.layout)
    return chunk_size - length % chunk_size


def fitting_slots(tokenizer: Any, spec: ClipSpec, chunk_size: int, room: int) -> list[int]:
    """Slot counts up to `spec.num_slots` whose prefix leaves `room` tokens in the open chunk."""
    fits = []
    for count in range(1, spec.num_slots + 1):
        shorter = ClipSpec(num_slots=count, fps=spec.fps, width=spec.width, height=spec.height)
        if room_for_branch(clip_prefix(tokenizer, shorter), chunk_size) >= room:
            fits.append(count)
    return fits


def check_room(prefix: Prefix, chunk_size: int, length: int) -> None:
    """Refuse branches that would write the fast weights: they could not be independent then."""
    room = room_for_branch(prefix, chunk_size)
    if length > room:
        raise ConfigError(
            f"a prefix of {num_tokens(prefix.layout)} tokens leaves {room} of {chunk_size} tokens of its chunk, "
            f"branches of {length} tokens would fill it; choose another number of slots (see fitting_slots)"
        )
