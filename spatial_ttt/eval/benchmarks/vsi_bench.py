"""VSI-Bench: 5,130 questions about 288 videos of ARKitScenes, ScanNet and ScanNet++."""

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
from spatial_ttt.eval.benchmarks.records import Row, find_questions, read_rows, revision_of
from spatial_ttt.eval.question_types import answer_kind

WHAT = "nyu-visionx/VSI-Bench (test.jsonl and the unzipped arkitscenes, scannet, scannetpp folders)"
NAMES = ("test.jsonl", "test-00000-of-00001.parquet", "test.parquet", "vsi_bench.jsonl")
NUM_QUESTIONS = 5130
SAMPLING = FrameSampling(num_frames=128)


def load_vsi_bench(data: Path) -> Benchmark:
    """Read the questions; the clips' files are checked by whoever runs them."""
    source = find_questions(data, NAMES, WHAT)
    return Benchmark(
        name="vsi-bench",
        version=1,
        items=check_unique(read_questions(source), source),
        revision=revision_of(source),
        source=source,
        sampling=SAMPLING,
        expected_items=NUM_QUESTIONS,
    )


def read_questions(source: Path) -> tuple[BenchmarkItem, ...]:
    """Every question of the file as an item, in order; also for uses that need only answers."""
    return tuple(_item(row, index, source.parent) for index, row in enumerate(read_rows(source)))


def _item(row: Row, index: int, root: Path) -> BenchmarkItem:
    question_type = row.text("question_type")
    kind = answer_kind(question_type)
    if kind is None:
        raise DataError(f"{row.place}: VSI-Bench has no question type {question_type!r}")
    dataset, scene = row.text("dataset"), row.text("scene_name")
    options = row.texts("options")
    if kind == "number":
        row.number("ground_truth")
        answer = row.text("ground_truth")
    else:
        answer = row.choice("ground_truth", options)
    return BenchmarkItem(
        item_id=row.optional_text("id") or f"line-{index:05d}",
        question_type=question_type,
        kind=kind,
        question=row.text("question"),
        options=options if kind == "choice" else (),
        answer=answer,
        clip=Clip((_video_path(root, dataset, scene),)),
        tags={"dataset": dataset, "scene": scene},
    )


def _video_path(root: Path, dataset: str, scene: str) -> Path:
    for folder in (root, root / "videos"):
        if (folder / dataset).is_dir():
            return folder / dataset / f"{scene}.mp4"
    return root / dataset / f"{scene}.mp4"
