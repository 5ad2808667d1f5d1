"""The sample format users have their data in: JSON or JSONL, read with every mistake named.

file -> lines -> Pack (one sample, or several that are trained as one sequence) -> Sample
A sample: {"video" or "image": path or list, "conversations": [{"from": "human" | "gpt", "value"}]}
`<video>` and `<image>` stand in human turns only, as many as there are files. A path may lead into a
tar shard: `train-000000.tar/0007.mp4`; `read_media` gives its bytes.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from spatial_ttt.errors import DataError

SAMPLE_FORMAT = 1
"""Version of the samples we write; a sample that declares a newer one is refused."""

Speaker = Literal["human", "gpt"]
MARKERS: dict[str, str] = {"video": "<video>", "image": "<image>"}
_KNOWN = frozenset(
    {
        "format",
        "id",
        "video",
        "image",
        "conversations",
        "question_type",
        "options",
        "ground_truth",
        "visible_until_s",
    }
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One thing said."""

    speaker: Speaker
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One conversation about some videos or images."""

    turns: tuple[Turn, ...]
    videos: tuple[str, ...] = ()  # paths, relative to the file they stand in
    images: tuple[str, ...] = ()
    id: str | None = None
    question_type: str | None = None
    options: tuple[str, ...] | None = None
    ground_truth: str | None = None
    visible_until_s: float | None = None  # the video may be watched up to here, None: all of it
    extra: Mapping[str, Any] = field(default_factory=dict)  # whatever else the record holds


Pack = tuple[Sample, ...]


# --- Reading -------------------------------------------------------------------------------------


def read_packs(path: str | Path) -> Iterator[Pack]:
    """Every pack of a .json or .jsonl file, validated; a plain sample is a pack of one."""
    path = Path(path)
    for where, record in _records(path):
        yield parse_pack(record, where)


def read_samples(path: str | Path) -> Iterator[Sample]:
    """Every sample of a file, packs taken apart."""
    for pack in read_packs(path):
        yield from pack


def parse_pack(record: Any, where: str) -> Pack:
    """A pack from parsed JSON: one sample, or a list of them. `where` names it in errors."""
    if not isinstance(record, list):
        return (parse_sample(record, where),)
    if not record:
        raise DataError(f"{where}: an empty list; a pack holds at least one sample")
    return tuple(parse_sample(item, f"{where}, sample {n}") for n, item in enumerate(record))


def parse_sample(record: Any, where: str) -> Sample:
    """A sample from parsed JSON; DataError names the first thing wrong with it."""
    if not isinstance(record, dict):
        raise DataError(
            f"{where}: a {type(record).__name__}, expected an object with conversations"
        )
    version = record.get("format", SAMPLE_FORMAT)
    if not isinstance(version, int) or version > SAMPLE_FORMAT:
        raise DataError(f"{where}: format {version!r}; this version reads up to {SAMPLE_FORMAT}")
    sample = Sample(
        turns=_turns(record.get("conversations"), where),
        videos=_paths(record, "video", where),
        images=_paths(record, "image", where),
        id=_optional(record, "id", str, where),
        question_type=_optional(record, "question_type", str, where),
        options=_options(record, where),
        ground_truth=_optional(record, "ground_truth", str, where),
        visible_until_s=_optional(record, "visible_until_s", float, where),
        extra={key: value for key, value in record.items() if key not in _KNOWN},
    )
    _check_markers(sample, where)
    return sample


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, parsed JSON) of every line of a JSONL file, or every item of a JSON file."""
    try:
        if path.suffix == ".jsonl":
            with path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield f"{path}:{number}", _parse(line, f"{path}:{number}")
            return
        content = _parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from error
    items = content if isinstance(content, list) else [content]
    for number, item in enumerate(items):
        yield f"{path}[{number}]", item


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where} is not JSON: {error}") from error


def _turns(value: Any, where: str) -> tuple[Turn, ...]:
    if not isinstance(value, list) or not value:
        raise DataError(f"{where}: conversations must be a list of turns, got {_short(value)}")
    turns = []
    for number, turn in enumerate(value):
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
            raise DataError(f"{where}, turn {number}: expected from and value, got {_short(turn)}")
        expected: Speaker = "gpt" if number % 2 else "human"
        if turn.get("from") != expected:
            raise DataError(
                f"{where}, turn {number} is from {turn.get('from')!r}, expected {expected!r}: "
                "turns alternate, human first"
            )
        turns.append(Turn(expected, turn["value"]))
    return tuple(turns)


def _paths(record: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = record.get(key)
    paths = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(path, str) and path for path in paths):
        raise DataError(f"{where}: {key} must be a path or a list of paths, got {_short(value)}")
    return tuple(paths)


def _options(record: dict[str, Any], where: str) -> tuple[str, ...] | None:
    value = record.get("options")
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise DataError(f"{where}: options must be a list of texts, got {_short(value)}")
    return tuple(value)


def _optional(record: dict[str, Any], key: str, kind: type, where: str) -> Any:
    value = record.get(key)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if value is not None and not isinstance(value, kind):
        raise DataError(f"{where}: {key} must be a {kind.__name__}, got {_short(value)}")
    return value


def _check_markers(sample: Sample, where: str) -> None:
    """Markers stand in human turns only and match the files in number."""
    for key, marker in MARKERS.items():
        files = sample.videos if key == "video" else sample.images
        said = [turn for turn in sample.turns if marker in turn.text]
        if any(turn.speaker == "gpt" for turn in said):
            raise DataError(f"{where}: {marker} in a gpt turn; markers stand in human turns only")
        count = sum(turn.text.count(marker) for turn in said)
        if count != len(files):
            raise DataError(
                f"{where}: {count} {marker} for {len(files)} {key} paths; they must be as many"
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# --- Writing -------------------------------------------------------------------------------------


def sample_to_json(sample: Sample) -> dict[str, Any]:
    """The JSON record of a sample; `parse_sample` reads it back unchanged."""
    record: dict[str, Any] = {"format": SAMPLE_FORMAT}
    if sample.id is not None:
        record["id"] = sample.id
    for key, paths in (("video", sample.videos), ("image", sample.images)):
        if paths:
            record[key] = paths[0] if len(paths) == 1 else list(paths)
    record["conversations"] = [{"from": turn.speaker, "value": turn.text} for turn in sample.turns]
    for key in ("question_type", "ground_truth", "visible_until_s"):
        if getattr(sample, key) is not None:
            record[key] = getattr(sample, key)
    if sample.options is not None:
        record["options"] = list(sample.options)
    return record | dict(sample.extra)


def to_jsonl(samples: Iterable[Sample]) -> str:
    """Samples as JSON lines."""
    return "".join(json.dumps(sample_to_json(sample)) + "\n" for sample in samples)


# --- Media ---------------------------------------------------------------------------------------


def read_media(root: str | Path, path: str) -> Path | bytes:
    """What a sample's path stands for, relative to `root`: a file's path, or bytes out of a tar."""
    whole = Path(root) / path
    if whole.exists():
        return whole
    for parent in whole.parents:
        if parent.suffix == ".tar" and parent.is_file():
            return _read_member(parent, whole.relative_to(parent).as_posix())
    raise DataError(f"{whole} does not exist; paths are relative to the file that names them")


def _read_member(shard: Path, name: str) -> bytes:
    place = _members(str(shard), shard.stat().st_mtime_ns).get(name)
    if place is None:
        raise DataError(
            f"{shard} holds no {name}; the shard and examples.jsonl do not belong together"
        )
    with shard.open("rb") as file:
        file.seek(place[0])
        return file.read(place[1])


@lru_cache(maxsize=256)
def _members(shard: str, _changed_ns: int) -> dict[str, tuple[int, int]]:
    """Member name -> (offset, size) in bytes: a shard is read through once, not once per clip."""
    try:
        with tarfile.open(shard) as archive:
            return {member.name: (member.offset_data, member.size) for member in archive}
    except tarfile.TarError as error:
        raise DataError(f"{shard} is not a whole tar file: {error}") from error
