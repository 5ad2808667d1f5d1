"""What a benchmark is made of: items to ask, what to watch first, and how the frames are taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from spatial_ttt.errors import ConfigError, DataError
from spatial_ttt.eval.question_types import AnswerKind


@dataclass(frozen=True, slots=True)
class Clip:
    """What an item's viewer watches: one video file, or images shown one after the other."""

    paths: tuple[Path, ...]
    is_images: bool = False

    @property
    def key(self) -> str:
        """One string per clip: items with equal keys share one ingest."""
        return "\n".join(str(path) for path in self.paths)

    @property
    def name(self) -> str:
        """A short name for people: the last two parts of the first path."""
        return "/".join(self.paths[0].parts[-2:]) if self.paths else "(no clip)"


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkItem:
    """One question about one clip."""

    item_id: str
    question_type: str
    kind: AnswerKind
    question: str
    """The benchmark's own words, without options and instructions."""
    options: tuple[str, ...] = ()
    """As the benchmark prints them: "A. front-left"."""
    answer: str
    """A number in decimal digits, or an option's letter."""
    clip: Clip
    ask_time_s: float | None = None
    """Asked when the stream has shown everything up to this second; None: at its end."""
    stream_minutes: float | None = None
    """Nominal length of a long stream, for the curve of score against length."""
    prompt: str | None = None
    """The dataset's own full prompt, used as it is when given."""
    max_new_tokens: int = 16
    tags: Mapping[str, str] = field(default_factory=dict)
    """What `--only KEY=VALUE` selects by: dataset, split, setting."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameSampling:
    """Which frames of a clip are shown, and how large: exactly one of `num_frames` and `fps`."""

    num_frames: int | None = None
    """Evenly spread over the clip, first and last included."""
    fps: float | None = None
    """Frames per second of the clip's own time."""
    height: int | None = None
    width: int | None = None
    """Pixels, both or neither; None: as they are, the model resizes them its own way."""
    doubled: bool = False
    """Images: each fills one slot of two equal frames, one second per frame."""

    def __post_init__(self) -> None:
        if (self.num_frames is None) == (self.fps is None) and not self.doubled:
            raise ConfigError(
                f"frame sampling needs num_frames or fps and not both, "
                f"got num_frames={self.num_frames}, fps={self.fps}"
            )
        if (self.height is None) != (self.width is None):
            raise ConfigError(f"frame size needs height and width, got {self.height}x{self.width}")

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) in pixels, or None."""
        return None if self.height is None or self.width is None else (self.height, self.width)

    def describe(self) -> str:
        """One phrase for the report."""
        size = "as they are" if self.size is None else f"{self.height}x{self.width}"
        if self.doubled:
            return f"every image twice, {size}"
        if self.num_frames is not None:
            return f"{self.num_frames} frames evenly spread, {size}"
        return f"{self.fps:g} frames/s, {size}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """A named, versioned list of items read from the user's disk."""

    name: str
    version: int
    """Counts changes of ours to prompts, parsing or selection; scores of two versions never mix."""
    items: tuple[BenchmarkItem, ...]
    revision: str
    """The dataset's revision: its snapshot name if the path tells, and the question file's hash."""
    source: Path
    sampling: FrameSampling
    expected_items: int | None = None
    """How many questions the published benchmark has; fewer means the report says "subset"."""

    @property
    def is_complete(self) -> bool:
        """Whether every question of the published benchmark is here."""
        return self.expected_items is None or len(self.items) == self.expected_items

    def only(self, selection: Mapping[str, str]) -> Benchmark:
        """The items whose type, kind or tag match every `selection` entry."""
        kept = tuple(item for item in self.items if _matches(item, selection))
        if not kept:
            raise DataError(
                f"{self.name}: no item matches {dict(selection)}; "
                f"known: {_known_values(self.items)}"
            )
        return replace(self, items=kept)


def check_unique(items: tuple[BenchmarkItem, ...], source: Path) -> tuple[BenchmarkItem, ...]:
    """Return `items`; raise `DataError` when two share an id (one would overwrite the other)."""
    counts = Counter(item.item_id for item in items)
    doubles = [item_id for item_id, count in counts.items() if count > 1]
    if doubles:
        raise DataError(
            f"{source} gives {len(doubles)} ids more than once (first: {doubles[0]!r}, "
            f"{counts[doubles[0]]} times); every question needs its own id"
        )
    return items


def _matches(item: BenchmarkItem, selection: Mapping[str, str]) -> bool:
    values = {**item.tags, "question_type": item.question_type}
    return all(values.get(key) == wanted for key, wanted in selection.items())


def _known_values(items: tuple[BenchmarkItem, ...]) -> dict[str, list[str]]:
    known: dict[str, set[str]] = {"question_type": {item.question_type for item in items}}
    for item in items:
        for key, value in item.tags.items():
            known.setdefault(key, set()).add(value)
    return {key: sorted(values)[:12] for key, values in known.items()}
