"""What passes between scene workers and the training process; free of torch, so workers start fast."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spatial_ttt.errors import ConfigError
from spatial_ttt.scenes.questions.question import QUESTION_TYPES, STREAM_TYPES


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipSpec:
    """The shape all clips of a batch share."""

    num_slots: int
    """Pairs of frames."""
    fps: float
    """Frames per second."""
    width: int
    """Pixels; 32 per vision token."""
    height: int

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            if getattr(self, name) % 32:
                raise ConfigError(
                    f"clip {name} must be a multiple of 32 pixels, got {getattr(self, name)}"
                )
        if self.num_slots < 1 or self.fps <= 0:
            raise ConfigError(
                f"a clip needs slots and a rate, got {self.num_slots} slots at {self.fps} fps"
            )

    @property
    def num_frames(self) -> int:
        """Two per slot."""
        return 2 * self.num_slots

    @property
    def grid(self) -> tuple[int, int]:
        """Vision tokens (rows, columns) of a slot."""
        return self.height // 32, self.width // 32

    @property
    def times(self) -> NDArray[np.float64]:
        """Seconds of every frame."""
        return np.arange(self.num_frames) / self.fps

    @property
    def slot_times(self) -> NDArray[np.float64]:
        """Mean of each slot's two frame times, in seconds."""
        mean: NDArray[np.float64] = self.times.reshape(-1, 2).mean(1)
        return mean


class Chain(NamedTuple):
    """How a stream is made of clips."""

    homes: int
    """Clips in a row."""
    stride: int = 1
    """Every so many-th frame is shown, 2 halves the rate; at most `MOST_STRIDE`."""
    shortest: float = 1.0
    """Least share of a clip that is shown, from its beginning; of shorter stays there are more than `homes`."""

    def slots(self, num_slots: int) -> int:
        """The most slots of the stream that a clip of so many becomes."""
        return num_slots // self.stride

    def shown(self, num_slots: int) -> slice:
        """The frames of a clip that are shown: as many as fill whole slots."""
        return slice(0, 2 * self.stride * self.slots(num_slots), self.stride)


@dataclass(frozen=True, kw_only=True, slots=True)
class Difficulty:
    """What a curriculum turns up: how large homes are and how the camera moves."""

    rooms: tuple[int, int]
    """Least and most rooms."""
    least_size: float
    """Things whose longest side is shorter, in metres, are left out."""
    most_objects: int
    """Things beyond this number are left out."""
    walks: bool
    """The camera walks through all rooms; otherwise it turns on the spot in one."""


class SceneTask(NamedTuple):
    """Make these homes, ask what fits in a branch of `branch_length` tokens."""

    number: int
    seeds: tuple[int, ...]
    spec: ClipSpec
    difficulty: Difficulty
    branch_length: int


class Filmed(NamedTuple):
    """What the ray caster needs of one home; `ticket` finds the rest in its worker."""

    ticket: int
    records: NDArray[np.float32]  # [P, 32] packed parts, see scenes.shading
    poses: NDArray[np.float32]  # [T, 3, 4] camera to world
    lens: tuple[float, float, float, float]  # focal lengths and principal point, pixels
    category: NDArray[np.uint8]  # [256] category index of each object id; 0 is the building


class FilmedHomes(NamedTuple):
    """The reply to a task: its homes, and what was wrong with those left out."""

    task: int
    homes: list[Filmed]
    failures: list[str]


class Sighting(NamedTuple):
    """What the renderer saw of one home."""

    ticket: int
    pixels: NDArray[np.int32]  # [T, 256] visible pixels of each object id


class Exchanges(NamedTuple):
    """The M questions of a clip with their answers, tokenised and padded to one length."""

    ids: NDArray[np.int16]  # [M, Lq] prompt, answer, <|im_end|>, then zeros
    start: NDArray[np.int16]  # [M] index of the first answer token
    stop: NDArray[np.int16]  # [M] index after the answer's <|im_end|>
    kind: NDArray[np.uint8]  # [M] index into KINDS
    named: NDArray[np.uint8]  # [M, Lq] category whose name ends at this token; 0: none does
    truth: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.truth)


class Facts(NamedTuple):
    """What is true of a clip at the end of each slot, for dense supervision."""

    # [S, 4]: x right and y ahead of the first camera (m), sine and cosine of the turn
    pose: NDArray[np.float32]
    counts: NDArray[np.uint8]  # [S, K] instances of each category clearly seen so far
    # [K, 2] x, y of single instances in the first camera's frame; nan: none
    place: NDArray[np.float32]
    first: NDArray[np.float32]  # [K] seconds until a category was first clearly seen; nan: never
    # [N, K] instances clearly seen, and only glimpsed, where every n-th frame is shown, n from 1
    counted: NDArray[np.uint8]
    glimpsed: NDArray[np.uint8]


class Needle(NamedTuple):
    """An unusual thing to be remembered, as a stream of clips asks for it."""

    item: int  # its category
    place: int  # the category of what it stands by
    clear: NDArray[np.bool_]  # [T] frames in which it is clearly seen


class Record(NamedTuple):
    """All that is asked of one clip."""

    ticket: int
    seed: int
    exchanges: Exchanges
    facts: Facts
    dropped: int  # exchanges too long for a branch
    needle: Needle | None = None


class AskedClips(NamedTuple):
    """The reply to sightings; failures are tickets and what was wrong."""

    records: list[Record]
    failures: list[tuple[int, str]]


@cache
def categories() -> tuple[str, ...]:
    """Category names by index; index 0 is the building, 1.. the catalogue's, sorted."""
    from spatial_ttt.scenes import catalogue
    from spatial_ttt.scenes.dice import Dice

    names = {catalogue.make(kind, Dice(0)).category for kind in catalogue.KINDS}
    return ("building", *sorted(names))


DENSE_KINDS = (
    "dense_place",
    "dense_view",
    "dense_first",
    "dense_sooner",
    "dense_nearer",
    "dense_side",
    "dense_turn",
    "dense_said",
    "dense_leg",
    "dense_route",
    "dense_spot",
    "dense_recall",
)
KINDS = (*QUESTION_TYPES, *STREAM_TYPES, *DENSE_KINDS)
"""Every kind of exchange, in the order of its index; new ones come last."""

MOST_STRIDE = 4
"""Every so many-th frame of a clip may be shown, at the least."""
MAX_OBJECTS = 256
"""Object ids a clip may use, the building's 0 included."""
