"""The procedural benchmark: held-out generated scenes, in the project's own data format.

Every `examples.jsonl` under the folder is read. The same eight tasks as VSI-Bench, and counting and
recall over chained rooms; a question is asked when the camera has seen what it is about.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from spatial_ttt.data_format import MARKERS, Sample, read_samples
from spatial_ttt.errors import DataError
from spatial_ttt.eval.benchmarks.item import (
    Benchmark,
    BenchmarkItem,
    Clip,
    FrameSampling,
    check_unique,
)
from spatial_ttt.eval.benchmarks.records import Row, revision_of
from spatial_ttt.eval.question_types import answer_kind

WHAT = "nothing: make it with `spatial-ttt data build` and its held-out test seeds"
FILE_NAME = "examples.jsonl"
SAMPLING = FrameSampling(fps=2.0)


def load_procedural(data: Path) -> Benchmark:
    """Every question under `data`: a folder, or one examples.jsonl. Descriptions are no items."""
    files = [data] if data.is_file() else sorted(data.rglob(FILE_NAME))
    if not files:
        raise DataError(f"{data} holds no {FILE_NAME}; make one with `spatial-ttt data build`")
    top = data if data.is_dir() else data.parent
    items = tuple(item for file in files for item in _items_of(file, top))
    if not items:
        raise DataError(f"{data} holds no questions: no row has question_type and ground_truth")
    return Benchmark(
        name="procedural",
        version=1,
        items=check_unique(items, data),
        revision=", ".join(revision_of(file) for file in files[:8]),
        source=data,
        sampling=SAMPLING,
    )


def _items_of(file: Path, top: Path) -> list[BenchmarkItem]:
    name = file.relative_to(top).parent.as_posix()
    items = []
    for index, sample in enumerate(read_samples(file)):
        if sample.question_type and sample.ground_truth is not None:
            item = _item(sample, f"{name}/{index:06d}", file)
            items += [item, *_queries(sample, item)]
    return items


def _queries(sample: Sample, item: BenchmarkItem) -> list[BenchmarkItem]:
    """The same count asked while the stream runs: one item per query time."""
    if "query_times" not in sample.extra:
        return []
    row = Row(sample.extra, f"sample {item.item_id}")
    times, answers = row.numbers("query_times"), row.numbers("query_answers")
    if len(times) != len(answers):
        raise DataError(f"{row.place}: {len(times)} query_times, {len(answers)} query_answers")
    return [
        replace(
            item,
            item_id=f"{item.item_id}@{time:g}s",
            question_type=f"{item.question_type}_streaming",
            answer=f"{answer:g}",
            ask_time_s=time,
            stream_minutes=time / 60,
        )
        for time, answer in zip(times, answers, strict=True)
    ]


def _item(sample: Sample, place_id: str, file: Path) -> BenchmarkItem:
    item_id = sample.id or place_id
    row = Row({"ground_truth": sample.ground_truth}, f"{file} sample {item_id}")
    question_type, options = sample.question_type or "", sample.options or ()
    kind = answer_kind(question_type) or ("choice" if options else "number")
    if kind == "number":
        row.number("ground_truth")
    else:
        row.choice("ground_truth", options)
    until = sample.visible_until_s
    human = _without_markers(sample.turns[0].text)
    return BenchmarkItem(
        item_id=item_id,
        question_type=question_type,
        kind=kind,
        question=human,
        options=options if kind == "choice" else (),
        answer=row.text("ground_truth"),
        clip=_clip(sample, row.place, file.parent),
        ask_time_s=until,
        stream_minutes=None if until is None else until / 60,
        prompt=human,  # the data already words the question as a model is trained on it
        tags={
            key: str(sample.extra[key])
            for key in ("split", "scene", "scene_id", "dataset")
            if key in sample.extra
        },
    )


def _without_markers(text: str) -> str:
    for marker in MARKERS.values():
        text = text.replace(marker, "")
    return text.strip()


def _clip(sample: Sample, place: str, root: Path) -> Clip:
    if len(sample.videos) == 1 and not sample.images:
        return Clip((root / sample.videos[0],))
    if sample.images and not sample.videos:
        return Clip(tuple(root / image for image in sample.images), is_images=True)
    raise DataError(
        f"{place}: a benchmark question is about one video or some images, "
        f"got {len(sample.videos)} videos and {len(sample.images)} images"
    )
