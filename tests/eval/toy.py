"""A small real model: it counts and remembers what it is shown, and answers from that alone.

Each picture of the toy clips has one of 8 grey levels in its left half (a "place") and a marker in
the right half. The model's memory is the set of places it has seen. It counts bright markers too.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from spatial_ttt.eval.interface import ModelCard, NotOffered, SessionOptions
from spatial_ttt.video.frame import Frame

WINDOW = 4
"""Frames a memoryless session can still see."""


@dataclass
class ToySession:
    """Remembers the places of the pictures seen, or only the last ones with the memory off."""

    options: SessionOptions
    log: list[str]
    delay_s: float
    places: list[int] = field(default_factory=list)
    last_time: float = -1.0
    is_closed: bool = False

    def observe(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            assert frame.time >= self.last_time, "frames out of order"
            self.last_time = frame.time
            self.places.append(round(float(frame.pixels[:, : frame.pixels.shape[1] // 2].mean())))
        self.log.append("observe")

    def visible(self) -> list[int]:
        if self.options.memory == "off" or self.options.attention == "window_only":
            return self.places[-WINDOW:]
        if self.options.anchors == "bounded":
            assert self.options.anchor_budget_bytes is not None
            return self.places[-self.options.anchor_budget_bytes :]
        return self.places

    def ask(self, question: str, *, max_new_tokens: int) -> Iterator[str]:
        assert not self.is_closed and max_new_tokens > 0
        self.log.append("ask")
        time.sleep(self.delay_s)
        levels = sorted({place // 32 for place in self.visible()})
        if "Options:" in question or "A. " in question:
            yield chr(65 + (len(levels) + len(question)) % 4)
            yield "."
        else:
            yield str(len(levels))

    def fork(self) -> ToySession:
        return ToySession(self.options, self.log, self.delay_s, list(self.places), self.last_time)

    def adopt_memory(self, donor: object) -> None:
        assert isinstance(donor, ToySession)
        self.places = list(donor.places)

    def close(self) -> None:
        assert not self.is_closed, "closed twice"
        self.is_closed = True


class ToyModel:
    """Opens toy sessions and logs what they were made to do."""

    card = ModelCard(
        name="toy", checkpoint="tests", checkpoint_hash="0", rule="set of places", dtype="uint8"
    )

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.opened: list[SessionOptions] = []
        self.log: list[str] = []

    def open_session(self, options: SessionOptions) -> ToySession:
        if options.memory == "reset":
            raise NotOffered("the toy has no chunks to reset at")
        self.opened.append(options)
        return ToySession(options, self.log, self.delay_s)


def place_pictures(places: list[int], size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Pictures [T, H, W, 3] whose grey level names their place (0 to 7)."""
    levels = np.array(places, dtype=np.uint8) * 32 + 16
    return np.broadcast_to(levels[:, None, None, None], (len(places), *size, 3)).copy()
