"""How a source is read: the knobs beside rate and size, and the counts a source keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from spatial_ttt.errors import ConfigError

OnCorrupt = Literal["raise", "skip"]
DropPolicy = Literal["oldest", "block"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadOptions:
    """Everything about reading that most callers leave alone."""

    on_corrupt: OnCorrupt = "raise"
    """A damaged file: raise VideoError, or skip what is damaged and count it. Live sources skip."""
    input_fps: float | None = None
    """Frames per second of sources that carry no times (image folders, arrays)."""
    times: tuple[float, ...] | None = None
    """Times in seconds of such sources, one per frame, instead of `input_fps`."""
    drop: DropPolicy = "oldest"
    """A live source faster than its reader: drop the oldest waiting frame, or block the source."""
    queue_frames: int = 8
    """Frames a live source may hold for its reader."""
    max_reconnects: int = 5
    """Attempts in a row to reach a lost stream again before giving up."""
    backoff_s: float = 0.5
    """Wait before the first attempt; it doubles with each one up to 30 s."""
    timeout_s: float = 10.0
    """A live source silent for so long counts as lost."""
    format_options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """FFmpeg's own options for opening, e.g. {"rtsp_transport": "udp"}."""

    def __post_init__(self) -> None:
        if self.on_corrupt not in ("raise", "skip"):
            raise ConfigError(f"on_corrupt is 'raise' or 'skip', got {self.on_corrupt!r}")
        if self.drop not in ("oldest", "block"):
            raise ConfigError(f"drop is 'oldest' or 'block', got {self.drop!r}")
        if self.input_fps is not None and not self.input_fps > 0:
            raise ConfigError(f"input_fps must be above 0, got {self.input_fps}")
        if self.input_fps is not None and self.times is not None:
            raise ConfigError("input_fps and times both say when frames were seen; give one")
        if self.queue_frames < 1:
            raise ConfigError(f"queue_frames must be at least 1, got {self.queue_frames}")
        if self.max_reconnects < 0 or self.backoff_s < 0 or not self.timeout_s > 0:
            raise ConfigError("max_reconnects and backoff_s are at least 0, timeout_s above 0")


@dataclass(slots=True)
class SourceStats:
    """What a source has done so far."""

    frames_decoded: int = 0
    frames_given: int = 0
    frames_dropped: int = 0  # live only: thrown away because the reader was slow
    corrupt: int = 0  # packets or frames that could not be decoded whole
    reconnects: int = 0
    last_time: float = 0.0  # s, of the last frame decoded
