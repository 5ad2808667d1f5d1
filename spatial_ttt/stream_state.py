"""What a session knows of its stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from spatial_ttt.model.state import DecoderState
from spatial_ttt.video.frame import Frame


class StreamState(NamedTuple):
    """All that a session knows of its stream; immutable but for the anchors' buffers."""

    decoder: DecoderState
    lone: Frame | None  # the first frame of a slot whose second has not come
    last_time: float | None  # s, of the newest frame
    frame_size: tuple[int, int] | None  # (height, width) in pixels, fixed by the first frame
    num_frames: int
    num_slots: int


@dataclass
class Timings:
    """Seconds spent since the session was opened."""

    preprocess: float = 0.0
    vision: float = 0.0
    decoder: float = 0.0
    answer: float = 0.0
