"""VSI-SUPER: recall (VSR) and counting (VSC) over streams of 10 to 240 minutes, at 1 frame/s.

VSC-streaming asks the same count at several times of one stream: each query is an item of its own,
asked on a fork when the stream has shown everything up to its time.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from spatial_ttt.errors import DataError
from spatial_ttt.eval.benchmarks.item import (
    Benchmark,
    BenchmarkItem,
    Clip,
    FrameSampling,
    check_unique,
)
from spatial_ttt.eval.benchmarks.records import Row, find_questions, read_rows, revision_of

WHAT_RECALL = "nyu-visionx/VSI-SUPER-Recall (its question file and the folders 10mins, 30mins, ...)"
WHAT_COUNT = "nyu-visionx/VSI-SUPER-Count (its question file and the folders 10mins, 30mins, ...)"
NAMES = (
    "test.jsonl",
    "test.json",
    "test-00000-of-00001.parquet",
    "data/test-00000-of-00001.parquet",
)
SAMPLING = FrameSampling(fps=1.0)


def load_vsr(data: Path) -> Benchmark:
    """Recall: in which order did the odd object appear in its four places?"""
    return _load("vsr", data, WHAT_RECALL, _recall_items)


def load_vsc(data: Path) -> Benchmark:
    """Counting, asked once at the end of the stream."""
    return _load("vsc", data, WHAT_COUNT, _count_items)


def load_vsc_streaming(data: Path) -> Benchmark:
    """Counting, asked at every query time."""
    return _load("vsc-streaming", data, WHAT_COUNT, _streaming_items)


def _load(
    name: str, data: Path, what: str, items_of: Callable[[Row, int, Path], Iterator[BenchmarkItem]]
) -> Benchmark:
    source = find_questions(data, NAMES, what)
    items = tuple(
        item
        for index, row in enumerate(read_rows(source))
        for item in items_of(row, index, source.parent)
    )
    if not items:
        raise DataError(f"{source} holds no {name} questions; download {what}")
    return Benchmark(
        name=name,
        version=1,
        items=check_unique(items, source),
        revision=revision_of(source),
        source=source,
        sampling=SAMPLING,
    )


def _recall_items(row: Row, index: int, root: Path) -> Iterator[BenchmarkItem]:
    options = row.texts("options")
    split = row.text("type") if "type" in row.fields else row.text("split")
    yield BenchmarkItem(
        item_id=_row_id(row, index, split),
        question_type="vsr",
        kind="choice",
        question=row.text("question").strip(),
        options=options,
        answer=row.choice("answer", options),
        clip=Clip((root / row.text("video_path"),)),
        stream_minutes=_minutes(row, split),
        tags={"split": split},
    )


def _count_items(row: Row, index: int, root: Path) -> Iterator[BenchmarkItem]:
    if _is_streaming(row):
        return
    split = row.text("split")
    yield _count_item(row, root, _row_id(row, index, split), row.number("answer"), None)


def _streaming_items(row: Row, index: int, root: Path) -> Iterator[BenchmarkItem]:
    if not _is_streaming(row):
        return
    times, answers = row.numbers("query_times"), row.numbers("answers")
    if len(times) != len(answers) or not times:
        raise DataError(
            f"{row.place}: {len(times)} query_times but {len(answers)} answers; "
            "each query needs its answer (nothing is cut to the shorter list)"
        )
    if any(later <= earlier for earlier, later in itertools.pairwise(times)):
        raise DataError(f"{row.place}: query_times must rise, got {list(times)}")
    base = _row_id(row, index, row.text("split"))
    for time, answer in zip(times, answers, strict=True):
        yield _count_item(row, root, f"{base}@{time:g}s", answer, time)


def _count_item(
    row: Row, root: Path, item_id: str, answer: float, time: float | None
) -> BenchmarkItem:
    split = row.text("split")
    return BenchmarkItem(
        item_id=item_id,
        question_type="vsc" if time is None else "vsc_streaming",
        kind="number",
        question=row.text("question").strip(),
        answer=f"{answer:g}",
        clip=Clip((root / row.text("video_path"),)),
        ask_time_s=time,
        stream_minutes=_minutes(row, split),
        tags={"split": split},
    )


def _is_streaming(row: Row) -> bool:
    return row.fields.get("query_times") is not None or row.fields.get("answers") is not None


def _row_id(row: Row, index: int, split: str) -> str:
    return row.optional_text("id") or f"{split}/{index:04d}"


def _minutes(row: Row, split: str) -> float:
    found = re.match(r"(\d+)\s*min", split)
    if found is None:
        raise DataError(f"{row.place}: the split {split!r} names no length such as '10mins'")
    return float(found.group(1))
