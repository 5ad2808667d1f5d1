"""Replies on disk: one JSON line each, appended and synced, so that a killed run goes on.

run.json                     what was run; a folder with another run's replies is refused
predictions.jsonl            every reply, once the run is complete (or run by one process)
predictions.rank003.jsonl    the replies of one process of several, until they are merged
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from spatial_ttt.errors import DataError
from spatial_ttt.eval.benchmarks.item import BenchmarkItem
from spatial_ttt.eval.metrics import ReplyScore, score_reply
from spatial_ttt.eval.question_types import AnswerKind

PREDICTIONS = "predictions.jsonl"
RUN = "run.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """A reply with everything needed to score it again."""

    item_id: str
    question_type: str
    kind: AnswerKind
    answer: str
    reply: str
    question: str = ""
    options: tuple[str, ...] = ()
    prompt: str = ""
    clip: tuple[str, ...] = ()
    """Paths of the clip's files; items with equal clips are resampled together."""
    ask_time_s: float | None = None
    stream_minutes: float | None = None
    seen_s: float | None = None
    """Time of the last frame seen before the question; None for a blind reply."""
    num_frames: int = 0
    wall_s: float = 0.0
    """Seconds from question to end of reply."""
    parts: tuple[str, ...] = ()
    """The replies this one was summed from (segment-and-sum control only)."""
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def cluster(self) -> str:
        """What is resampled as one: the clip, or the item where no clip is known."""
        return "\n".join(self.clip) or self.item_id

    def score(self) -> ReplyScore:
        """The reply's score, always computed from its text."""
        return score_reply(self.reply, self.answer, self.kind, self.options)


def prediction_of(item: BenchmarkItem, reply: str, **seen: Any) -> Prediction:
    """The reply to an item; `seen` gives the fields of the asking."""
    return Prediction(
        item_id=item.item_id,
        question_type=item.question_type,
        kind=item.kind,
        answer=item.answer,
        reply=reply,
        question=item.question,
        options=item.options,
        clip=tuple(str(path) for path in item.clip.paths),
        ask_time_s=item.ask_time_s,
        stream_minutes=item.stream_minutes,
        tags=dict(item.tags),
        **seen,
    )


class PredictionLog:
    """An append-only file of replies. Opening it cuts off a line torn by a kill."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _cut_torn_line(path)
        self._file: TextIO = path.open("a", encoding="utf-8")

    def append(self, prediction: Prediction) -> None:
        """Write one reply and wait until it is on the disk."""
        self._file.write(json.dumps(asdict(prediction), ensure_ascii=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> PredictionLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def log_path(folder: Path, rank: int, world_size: int) -> Path:
    """Where the process of this rank writes."""
    return folder / (PREDICTIONS if world_size == 1 else f"predictions.rank{rank:03d}.jsonl")


def read_folder(folder: Path) -> list[Prediction]:
    """Every whole reply in a run's folder, of all its processes; a torn last line is left out."""
    found: dict[str, Prediction] = {}
    for path in sorted(folder.glob("predictions*.jsonl"), reverse=True):
        try:
            predictions = read_log(path, ignore_torn=True)
        except FileNotFoundError:  # just merged away by rank 0, into the file read last
            continue
        for prediction in predictions:
            found.setdefault(prediction.item_id, prediction)
    return list(found.values())


def read_log(path: Path, *, ignore_torn: bool = False) -> list[Prediction]:
    """The replies of one of our files."""
    lines = path.read_text(encoding="utf-8").split("\n")
    if lines[-1] and not ignore_torn:
        raise DataError(f"{path} ends inside a line: the run was killed; resume it first")
    known = {entry.name for entry in fields(Prediction)}
    predictions = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            record = json.loads(line)
            predictions.append(_from_record({k: v for k, v in record.items() if k in known}))
        except (json.JSONDecodeError, TypeError, AttributeError) as error:
            raise DataError(f"{path.name} line {number} is no reply of ours: {error}") from error
    return predictions


def merge(folder: Path, order: Iterable[str]) -> list[Prediction]:
    """Write all replies to predictions.jsonl in the benchmark's order; drop the processes' files."""
    position = {item_id: index for index, item_id in enumerate(order)}
    predictions = sorted(read_folder(folder), key=lambda one: position[one.item_id])
    staged = folder / (PREDICTIONS + ".new")
    staged.unlink(missing_ok=True)
    with PredictionLog(staged) as log:
        for prediction in predictions:
            log.append(prediction)
    staged.replace(folder / PREDICTIONS)
    for part in folder.glob("predictions.rank*.jsonl"):
        part.unlink()
    return predictions


def claim_folder(folder: Path, run: Mapping[str, Any], *, is_writer: bool) -> None:
    """Start a run here, or check that the one begun here is the same.

    Raises `DataError` naming what differs; replies of two runs never mix.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RUN
    if not path.exists():
        if is_writer:
            staged = path.with_suffix(".new")
            staged.write_text(json.dumps(run, indent=2, sort_keys=True) + "\n", encoding="utf-8")
            staged.replace(path)
        return
    begun = json.loads(path.read_text(encoding="utf-8"))
    wanted = json.loads(json.dumps(run))
    differing = sorted(key for key in begun.keys() | wanted if begun.get(key) != wanted.get(key))
    if differing:
        key = differing[0]
        raise DataError(
            f"{folder} holds another run: {', '.join(differing)} differ "
            f"({key}: {begun.get(key)!r} there, {wanted.get(key)!r} now); choose another --out"
        )


def wait_for_all(folder: Path, item_ids: set[str], *, poll_s: float, patience_s: float) -> None:
    """Wait until every item has a reply from some process; `DataError` when none comes for long."""
    last_count, last_change = -1, time.monotonic()
    while missing := item_ids - {one.item_id for one in read_folder(folder)}:
        if len(missing) != last_count:
            last_count, last_change = len(missing), time.monotonic()
        elif time.monotonic() - last_change > patience_s:
            raise DataError(
                f"{len(missing)} replies are missing in {folder} and none came for "
                f"{patience_s:.0f} s; did a process die? run the same command again to go on"
            )
        time.sleep(poll_s)


def _from_record(record: dict[str, Any]) -> Prediction:
    for name in ("options", "clip", "parts"):
        if name in record:
            record[name] = tuple(record[name])
    return Prediction(**record)


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole != len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
