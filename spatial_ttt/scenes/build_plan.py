"""What a build makes: its settings, and how scenes fall into splits and shards.

Everything follows from the settings alone, so any number of workers or machines make the same bytes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spatial_ttt.errors import ConfigError, DataError
from spatial_ttt.scenes.homes import SPLITS, home_seed
from spatial_ttt.scenes.program import MAX_ROOMS

BUILD_FORMAT = 1
"""Version of the folder a build makes; readers refuse a newer one."""
_SCENES_PER_SEED = 1 << 24
_MAX_SEED = (1 << 15) - 1
"""Build seeds fill the lower half of a split's homes; long streams take theirs from the upper."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildConfig:
    """The settings that decide every byte of a build."""

    train_scenes: int
    val_scenes: int
    test_scenes: int
    seed: int = 0
    fps: float = 5.0
    """Frames per second of the clips."""
    duration_s: float | None = None
    """Length of each walk in seconds; None: one tour of all rooms, however long."""
    min_fov_deg: float = 60.0
    max_fov_deg: float = 80.0
    """Horizontal field of view, drawn per scene between these."""
    width: int = 480
    height: int = 352
    small_sizes: tuple[tuple[int, int], ...] = ((192, 144), (128, 96))
    """(width, height) of further clips of the same walk, for small models."""
    min_rooms: int = 1
    max_rooms: int = MAX_ROOMS
    questions_per_type: int = 4
    """At most so many questions of each type about one scene, before the build is balanced."""
    scenes_per_shard: int = 8
    crf: int = 26
    """x264's quality: lower is better and larger. Drawn frames keep 44 to 46 dB at 26."""
    preset: str = "ultrafast"
    """x264's effort: ultrafast takes a third of veryfast's time and makes files half as large again."""

    def __post_init__(self) -> None:
        if min(self.train_scenes, self.val_scenes, self.test_scenes) < 0 or not self.num_scenes:
            raise ConfigError("a build makes at least 1 scene, and no split less than 0")
        if max(self.train_scenes, self.val_scenes, self.test_scenes) > _SCENES_PER_SEED:
            raise ConfigError(f"a split of one seed holds at most {_SCENES_PER_SEED} scenes")
        if not 0 <= self.seed <= _MAX_SEED:
            raise ConfigError(f"seed runs from 0 to {_MAX_SEED}, got {self.seed}")
        if not self.fps > 0 or (
            self.duration_s is not None and not self.duration_s * self.fps >= 1
        ):
            raise ConfigError("fps must be above 0 and duration_s long enough for a frame")
        if not 10 <= self.min_fov_deg <= self.max_fov_deg <= 150:
            raise ConfigError("fields of view run from 10 to 150 degrees, the least one first")
        check_rooms(self.min_rooms, self.max_rooms)
        if self.scenes_per_shard < 1 or self.questions_per_type < 0:
            raise ConfigError("scenes_per_shard is at least 1, questions_per_type at least 0")
        check_sizes(self.sizes)

    @property
    def num_scenes(self) -> int:
        """Scenes of all splits."""
        return self.train_scenes + self.val_scenes + self.test_scenes

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of every clip of a walk, the drawn one first."""
        return tuple(dict.fromkeys(((self.width, self.height), *self.small_sizes)))

    def scenes_in(self, split: str) -> int:
        """Scenes of one split."""
        return {"train": self.train_scenes, "val": self.val_scenes, "test": self.test_scenes}[split]

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON."""
        record = dataclasses.asdict(self)
        return plain_settings(record)


@dataclass(frozen=True, slots=True)
class SceneTask:
    """One scene to make."""

    split: str
    index: int  # within its split
    seed: int  # of its home

    @property
    def key(self) -> str:
        """The name its files share in a shard."""
        return f"{self.split}-{self.index:07d}"


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One shard to make: scenes first to last of a split."""

    split: str
    number: int  # within its split
    scenes: tuple[SceneTask, ...]

    @property
    def name(self) -> str:
        """File name without suffix."""
        return f"{self.split}-{self.number:06d}"


def shard_tasks(config: BuildConfig) -> Iterator[ShardTask]:
    """Every shard of a build, train first."""
    for split in SPLITS:
        count = config.scenes_in(split)
        for number, begin in enumerate(range(0, count, config.scenes_per_shard)):
            indices = range(begin, min(begin + config.scenes_per_shard, count))
            scenes = tuple(scene_task(config, split, index) for index in indices)
            yield ShardTask(split, number, scenes)


def scene_task(config: BuildConfig, split: str, index: int) -> SceneTask:
    """Scene number `index` of a split; seeds of splits and of build seeds never meet."""
    return SceneTask(split, index, home_seed(split, config.seed * _SCENES_PER_SEED + index))


def check_sizes(sizes: tuple[tuple[int, int], ...]) -> None:
    """Raise ConfigError unless every (width, height) can be encoded."""
    for width, height in sizes:
        if width < 2 or height < 2 or width % 2 or height % 2:
            raise ConfigError(f"clips need even sides of at least 2, got {width}x{height}")


def check_rooms(least: int, most: int) -> None:
    """Raise ConfigError unless homes can have that many rooms."""
    if not 1 <= least <= most <= MAX_ROOMS:
        raise ConfigError(f"rooms run from 1 to {MAX_ROOMS}, got {least} to {most}")


def parse_part(text: str | None) -> tuple[int, int]:
    """(i, n) of `--shard i/n`: this machine makes every n-th shard from the i-th, 0 <= i < n."""
    if text is None:
        return 0, 1
    first, slash, count = text.partition("/")
    if not (slash and first.isdigit() and count.isdigit() and int(first) < int(count)):
        raise ConfigError(f"--shard is i/n with 0 <= i < n, e.g. 0/4 to 3/4; got {text!r}")
    return int(first), int(count)


def parse_range(text: str) -> tuple[int, int]:
    """ "2-5" as (2, 5), "3" as (3, 3)."""
    first, dash, last = text.partition("-")
    if not first.isdigit() or (dash and not last.isdigit()):
        raise ConfigError(f"a range is FROM-TO or one number, e.g. 2-5; got {text!r}")
    return int(first), int(last or first)


def parse_sizes(text: str) -> list[tuple[int, int]]:
    """ "480x352,128x96" as [(480, 352), (128, 96)]."""
    sizes = []
    for size in filter(None, text.split(",")):
        width, cross, height = size.strip().partition("x")
        if not (cross and width.isdigit() and height.isdigit()):
            raise ConfigError(f"a size is WIDTHxHEIGHT, e.g. 480x352; got {size!r}")
        sizes.append((int(width), int(height)))
    return sizes


def clip_folder(out: Path, size: tuple[int, int], split: str) -> Path:
    """Where the shards and examples of one size and split stand."""
    return out / f"{size[0]}x{size[1]}" / split


def plain_settings(record: dict[str, Any]) -> dict[str, Any]:
    """Settings as they read back from JSON, with the format."""
    plain: dict[str, Any] = json.loads(json.dumps({"format": BUILD_FORMAT} | record))
    return plain


def check_same_settings(path: Path, wanted: dict[str, Any]) -> None:
    """Raise DataError if the folder was begun with other settings than `wanted`."""
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); choose an empty folder") from error
    names = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
    if names:
        told = ", ".join(f"{key}: {found.get(key)} there, {wanted.get(key)} now" for key in names)
        raise DataError(
            f"{path.parent} holds a build with other settings ({told}); "
            "repeat those settings or choose an empty folder"
        )
