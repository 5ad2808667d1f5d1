"""What a session knows of its stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from spatial_ttt.errors import VideoError
from spatial_ttt.model.bounded_cache import BoundedCache
from spatial_ttt.model.kv_cache import KVCache
from spatial_ttt.model.state import DecoderState, layer_bytes
from spatial_ttt.video.frame import Frame, check_frame


class StreamState(NamedTuple):
    """All that a session knows of its stream; immutable but for the anchors' buffers."""

    decoder: DecoderState
    lone: Frame | None  # the first frame of a slot whose second has not come
    last_time: float | None  # s, of the newest frame
    frame_size: tuple[int, int] | None  # (height, width) in pixels, fixed by the first frame
    num_frames: int
    num_slots: int

    @property
    def odd_slot(self) -> list[tuple[Frame, Frame]]:
        """What an odd last frame makes when a question comes: a slot of its own, as the reference processor pads it."""
        return [(self.lone, self.lone)] if self.lone else []

    def with_frame(self, frame: Frame) -> tuple[StreamState, tuple[Frame, Frame] | None]:
        """The state after one more frame, and the slot it completes, if any.

        Raises VideoError for a frame that is no picture, of another size, or earlier than the last.
        """
        check_frame(frame)
        size = (frame.pixels.shape[0], frame.pixels.shape[1])
        if self.frame_size not in (None, size):
            raise VideoError(
                f"frame of {size[0]}x{size[1]} pixels at {frame.time:.2f} s in a stream of {self.frame_size}; "
                f"resize the source or open a new session"
            )
        if self.last_time is not None and frame.time < self.last_time:
            raise VideoError(
                f"frame at {frame.time:.3f} s follows one at {self.last_time:.3f} s; times must not go backwards"
            )
        lone = self.lone
        after = self._replace(
            lone=frame if lone is None else None,
            last_time=frame.time,
            frame_size=size,
            num_frames=self.num_frames + 1,
        )
        return after, None if lone is None else (lone, frame)


@dataclass
class Timings:
    """Seconds spent since the session was opened."""

    preprocess: float = 0.0
    vision: float = 0.0
    decoder: float = 0.0
    answer: float = 0.0


@dataclass(frozen=True)
class SessionStats:
    """What a session holds and has done."""

    num_frames: int
    num_slots: int
    num_tokens: int
    seconds_seen: float
    ttt_bytes: int
    """Fast weights, windows, held slots: constant once the first chunk is full."""
    anchor_bytes: int
    """Keys and values of the anchors: grow with the stream unless bounded."""
    timings: Timings = field(default_factory=Timings)

    @property
    def state_bytes(self) -> int:
        """All bytes of the decoder's state."""
        return self.ttt_bytes + self.anchor_bytes

    @classmethod
    def of(cls, stream: StreamState, timings: Timings) -> SessionStats:
        """What a stream's state says."""
        decoder = stream.decoder
        caches = [part for part in decoder.layers if isinstance(part, KVCache | BoundedCache)]
        anchors = sum(layer_bytes(cache) for cache in caches)
        return cls(
            num_frames=stream.num_frames,
            num_slots=stream.num_slots,
            num_tokens=decoder.num_tokens,
            seconds_seen=stream.last_time or 0.0,
            ttt_bytes=decoder.num_bytes - anchors,
            anchor_bytes=anchors,
            timings=timings,
        )
