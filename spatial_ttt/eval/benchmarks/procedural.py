"""The procedural benchmark: held-out generated scenes, in the project's own data format.

Every `examples.jsonl` under the folder is read. The same eight tasks as VSI-Bench, and counting and
recall over chained rooms; a question is asked when the camera has seen what it is about.
"""

from __future__ import annotations

from pathlib import Path

from spatial_ttt.errors import DataError
from spatial_ttt.eval.benchmarks.item import (
    Benchmark,
    BenchmarkItem,
    Clip,
    FrameSampling,
    check_unique,
)
from spatial_ttt.eval.benchmarks.records import Row, read_rows, revision_of
from spatial_ttt.eval.question_types import answer_kind

WHAT = "nothing: make it with `spatial-ttt data build` and its held-out test seeds"
FILE_NAME = "examples.jsonl"
SAMPLING = FrameSampling(fps=2.0)
_MARKERS = ("<video>", "<image>")


def load_procedural(data: Path) -> Benchmark:
    """Every question under `data`: a folder, or one examples.jsonl. Descriptions are no items."""
    files = [data] if data.is_file() else sorted(data.rglob(FILE_NAME))
    if not files:
        raise DataError(f"{data} holds no {FILE_NAME}; make one with `spatial-ttt data build`")
    top = data if data.is_dir() else data.parent
    items = tuple(item for file in files for item in _items_of(file, top))
    if not items:
        raise DataError(
            f"{data} holds no questions: no row has both question_type and ground_truth"
        )
    return Benchmark(
        name="procedural",
        version=1,
        items=check_unique(items, data),
        revision=", ".join(revision_of(file) for file in files[:8]),
        source=data,
        sampling=SAMPLING,
    )


def _items_of(file: Path, top: Path) -> list[BenchmarkItem]:
    return [
        _item(row, f"{file.relative_to(top).with_suffix('')}:{index}", file.parent)
        for index, row in enumerate(read_rows(file))
        if row.fields.get("question_type") and row.fields.get("ground_truth") is not None
    ]


def _item(row: Row, place_id: str, root: Path) -> BenchmarkItem:
    question_type = row.text("question_type")
    options = row.texts("options")
    kind = answer_kind(question_type) or ("choice" if options else "number")
    if kind == "number":
        row.number("ground_truth")
        answer = row.text("ground_truth")
    else:
        answer = row.choice("ground_truth", options)
    until = row.fields.get("visible_until_s")
    human = _human_turn(row)
    return BenchmarkItem(
        item_id=row.optional_text("id") or place_id,
        question_type=question_type,
        kind=kind,
        question=row.optional_text("question") or human,
        options=options if kind == "choice" else (),
        answer=answer,
        clip=_clip(row, root),
        ask_time_s=None if until is None else row.number("visible_until_s"),
        stream_minutes=None if until is None else row.number("visible_until_s") / 60,
        prompt=None if row.fields.get("question") else human,  # trained on this very wording
        tags={key: str(row.fields[key]) for key in ("split", "dataset") if row.fields.get(key)},
    )


def _human_turn(row: Row) -> str:
    """The first human turn without its picture markers."""
    turns = row.fields.get("conversations")
    if not isinstance(turns, list) or not turns or not isinstance(turns[0], dict):
        raise DataError(f"{row.place}: 'conversations' must be a list of turns, got {turns!r}")
    text = turns[0].get("value")
    if turns[0].get("from") != "human" or not isinstance(text, str):
        raise DataError(f"{row.place}: the first turn must be a human's text, got {turns[0]!r}")
    for marker in _MARKERS:
        text = text.replace(marker, "")
    return text.strip()


def _clip(row: Row, root: Path) -> Clip:
    video, images = row.fields.get("video"), row.fields.get("image")
    if isinstance(video, list) and len(video) == 1:
        video = video[0]
    if isinstance(video, str) and video:
        return Clip((root / video,))
    if isinstance(images, str):
        images = [images]
    if isinstance(images, list) and images:
        return Clip(tuple(root / str(image) for image in images), is_images=True)
    raise DataError(
        f"{row.place}: needs one 'video' path or a list of 'image' paths, got {video!r}"
    )
