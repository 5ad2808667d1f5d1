"""What one run measures: checked as a whole before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec

from spatial_ttt.errors import ConfigError

MODES = ("stock", "exact", "bounded")
"""Qwen3-VL as transformers runs it; ours with all keys and values; ours with a bounded choice of them."""

MEASURES: dict[str, tuple[str, ...]] = {
    "prefill": ("stock", "exact", "bounded"),
    "question": ("exact", "bounded"),
    "live": ("exact", "bounded"),
    "bounded": ("bounded",),
    "sessions": ("exact", "bounded"),
}
"""What can be measured, and in which modes: a stock model has no stream to carry on."""

ENGINES = ("plain", "steady")
FRAMES_PER_SLOT = 2
FRAMES_PER_SECOND = 2.0
"""Of a live stream: a slot a second."""


@dataclass(frozen=True, kw_only=True)
class BenchPlan:
    """One run. Counts are frames where the name says so, else slots (of two frames)."""

    measures: tuple[str, ...] = ("prefill",)
    modes: tuple[str, ...] = MODES
    engine: str = "plain"
    frames: tuple[int, ...] = (128, 256, 512, 1024)
    """Lengths of `prefill`; `question` asks after each of them."""
    slots_per_piece: int = 16
    repeats: int = 3
    question_tokens: int = 40
    questions: int = 16
    answer_tokens: int = 32
    live_before: int = 600
    """Slots seen before single ones are timed: ten minutes."""
    live_slots: int = 300
    ask_every: int = 20
    bounded_frames: int = 7200
    anchor_bytes: int = 256 << 20
    anchor_bits: int = 16
    sessions: int = 32
    session_before: int = 32
    """Slots each session has seen before the rounds begin."""
    session_slots: int = 10
    """Rounds: one slot of every session each."""
    peak_tflops: float | None = None
    """What the device can do, for MFU; None: looked up by its name."""

    def __post_init__(self) -> None:
        _check_names("--what", self.measures, MEASURES)
        _check_names("--modes", self.modes, MODES)
        _check_names("--engine", (self.engine,), ENGINES)
        for name in ("frames", "bounded_frames"):
            value = getattr(self, name)
            for count in value if isinstance(value, tuple) else (value,):
                if count < FRAMES_PER_SLOT or count % FRAMES_PER_SLOT:
                    raise ConfigError(
                        f"{flag(name)} wants even numbers of at least {FRAMES_PER_SLOT} "
                        f"(a slot is two frames), got {count}"
                    )
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise ConfigError(f"{flag(name)} must be at least 1, got {getattr(self, name)}")
        if "bounded" in self.measures and self.bounded_frames < 8 * self.slots_per_piece:
            raise ConfigError(
                f"{flag('bounded_frames')} must hold four pieces of {self.slots_per_piece} slots, "
                f"got {self.bounded_frames} frames; stream longer or take smaller pieces"
            )
        if self.peak_tflops is not None and not self.peak_tflops > 0:
            raise ConfigError(f"--peak-tflops must be positive, got {self.peak_tflops}")
        for measure in self.measures:
            if not set(MEASURES[measure]) & set(self.modes):
                raise ConfigError(
                    f"{measure} is measured in the modes {', '.join(MEASURES[measure])}, "
                    f"but --modes names {', '.join(self.modes)} only"
                )
        if "stock" in self.modes and "prefill" in self.measures:
            check_stock()

    @property
    def jobs(self) -> list[tuple[str, str]]:
        """(mode, measure) pairs in the order they are run: one mode after the other."""
        return [
            (mode, measure)
            for mode in self.modes
            for measure in self.measures
            if mode in MEASURES[measure]
        ]


_COUNTS = (
    "slots_per_piece", "repeats", "question_tokens", "questions", "answer_tokens", "live_before",
    "live_slots", "ask_every", "sessions", "session_before", "session_slots",
)  # fmt: skip


def flag(name: str) -> str:
    """A field's option on the command line."""
    return "--" + name.replace("_", "-")


def words(text: str) -> tuple[str, ...]:
    """`a,b c` -> (a, b, c), each once."""
    return tuple(dict.fromkeys(text.replace(",", " ").split()))


def whole_numbers(name: str, text: str) -> tuple[int, ...]:
    """`128,256` -> (128, 256), in rising order; raises ConfigError for anything else."""
    try:
        numbers = tuple(sorted({int(word) for word in words(text)}))
    except ValueError as error:
        raise ConfigError(
            f"{flag(name)} wants whole numbers with commas between, got {text!r}"
        ) from error
    if not numbers:
        raise ConfigError(f"{flag(name)} names no number; write 128,256 for example")
    return numbers


def frame_size(text: str) -> tuple[int, int]:
    """`352x480` -> (352, 480): height and width in pixels."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise ConfigError(f"{text!r} is no size; write HEIGHTxWIDTH, for example 352x480")
    return int(parts[0]), int(parts[1])


def check_stock() -> None:
    """Raise ConfigError where transformers has no Qwen3-VL to compare with."""
    if find_spec("transformers.models.qwen3_vl") is None:
        raise ConfigError(
            "mode stock needs Qwen3-VL of transformers >= 5.17; install it, or leave stock out of --modes"
        )


def _check_names(option: str, names: Sequence[str], known: Iterable[str]) -> None:
    known = list(known)
    if not names:
        raise ConfigError(f"{option} names nothing; known: {', '.join(known)}")
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"{option} has no {name!r}; {hint}")
