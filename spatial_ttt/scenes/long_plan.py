"""What a long stream is made of: settings, and the homes it walks through one after another."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from spatial_ttt.errors import ConfigError
from spatial_ttt.scenes.build_plan import check_sizes, plain_settings
from spatial_ttt.scenes.homes import SPLITS

CHAINS_PER_STREAM = 8
"""Chains of homes tried for a stream until its unusual thing is seen at all four places."""
_STREAMS_PER_SEED = 1 << 12
_MAX_SEED = (1 << 11) - 1
MIN_MINUTES, MAX_MINUTES, MAX_REVISIT_SHARE = 3.0, 240.0, 0.3


@dataclass(frozen=True, kw_only=True, slots=True)
class LongConfig:
    """The settings that decide every byte of a set of long streams."""

    streams: int
    minutes: float
    seed: int = 0
    split: str = "train"
    fps: float = 2.0
    width: int = 480
    height: int = 352
    small_sizes: tuple[tuple[int, int], ...] = ((192, 144), (128, 96))
    revisit_share: float = 0.2
    """Share of a stream spent in homes walked through before."""
    counting_questions: int = 6
    """`vsc` questions per stream, half of them also asked while it runs."""
    num_queries: int = 10
    """Moments at which a streaming question is asked."""
    crf: int = 26
    preset: str = "ultrafast"

    def __post_init__(self) -> None:
        if not 1 <= self.streams <= _STREAMS_PER_SEED:
            raise ConfigError(f"streams run from 1 to {_STREAMS_PER_SEED}, got {self.streams}")
        if not MIN_MINUTES <= self.minutes <= MAX_MINUTES:
            raise ConfigError(
                f"minutes run from {MIN_MINUTES} to {MAX_MINUTES:g}, got {self.minutes}"
            )
        if self.split not in SPLITS:
            raise ConfigError(f"split is one of {', '.join(SPLITS)}, got {self.split!r}")
        if not 0 <= self.seed <= _MAX_SEED:
            raise ConfigError(f"seed runs from 0 to {_MAX_SEED}, got {self.seed}")
        if not self.fps > 0 or not 0 <= self.revisit_share <= MAX_REVISIT_SHARE:
            raise ConfigError(f"fps is above 0, revisit_share from 0 to {MAX_REVISIT_SHARE}")
        if min(self.counting_questions, self.num_queries) < 0:
            raise ConfigError("counting_questions and num_queries are at least 0")
        check_sizes(self.sizes)

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of every copy of a stream, the drawn one first."""
        return tuple(dict.fromkeys(((self.width, self.height), *self.small_sizes)))

    @property
    def num_frames(self) -> int:
        """Frames of one stream."""
        return max(1, round(self.minutes * 60 * self.fps))

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON."""
        return plain_settings({"kind": "long"} | dataclasses.asdict(self))


@dataclass(frozen=True, slots=True)
class StreamTask:
    """One stream to make."""

    split: str
    number: int
    seed: int  # of the chain of homes

    @property
    def name(self) -> str:
        """File name without suffix, also the stream's id."""
        return f"stream-{self.split}-{self.number:06d}"


def stream_tasks(config: LongConfig) -> Iterator[StreamTask]:
    """Every stream; homes of different streams and seeds never meet."""
    for number in range(config.streams):
        yield StreamTask(config.split, number, config.seed * _STREAMS_PER_SEED + number)
