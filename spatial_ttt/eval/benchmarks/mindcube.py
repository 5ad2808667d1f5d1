"""MindCube: what lies around, among and behind, asked about two to four views of a scene.

The views are shown as one video, each doubled so that it fills a slot of two frames.
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
from spatial_ttt.eval.benchmarks.records import Row, find_questions, read_rows, revision_of

WHAT = "MLL-Lab/MindCube (data.zip, unpacked: the question files and other_all_image)"
SETTINGS = ("around", "rotation", "translation", "among")
NUM_TINY = 1050
MAX_NEW_TOKENS = 4096
SAMPLING = FrameSampling(doubled=True, height=352, width=480)  # the views differ in size

_STEMS = {"mindcube-tiny": "MindCube_tinybench", "mindcube": "MindCube"}
_FOLDERS = ("prompts/general/", "data/prompts/general/", "", "raw/", "data/raw/", "data/")


def load_mindcube_tiny(data: Path) -> Benchmark:
    """The 1,050 questions of MindCube-Tiny."""
    return _load("mindcube-tiny", data, NUM_TINY)


def load_mindcube(data: Path) -> Benchmark:
    """All of MindCube, or any other file in its format."""
    return _load("mindcube", data, None)


def _load(name: str, data: Path, expected: int | None) -> Benchmark:
    stem = _STEMS[name]
    names = [
        folder + stem + suffix
        for suffix in ("_raw_qa.jsonl", ".jsonl")  # the first carries the dataset's input_prompt
        for folder in _FOLDERS
    ]
    source = find_questions(data, names, WHAT)
    rows = read_rows(source)
    root = _image_root(source, rows[0])
    items = tuple(_item(row, root) for row in rows)
    return Benchmark(
        name=name,
        version=1,
        items=check_unique(items, source),
        revision=revision_of(source),
        source=source,
        sampling=SAMPLING,
        expected_items=expected,
    )


def _image_root(source: Path, first: Row) -> Path:
    """The folder the image paths start from: the file's own, or one of the four above it."""
    images = first.texts("images")
    if not images:
        raise DataError(f"{first.place}: 'images' must list at least one image")
    for folder in list(source.absolute().parents)[:5]:
        for root in (folder, folder / "data"):
            if (root / images[0]).is_file():
                return root
    return source.absolute().parent


def _item(row: Row, root: Path) -> BenchmarkItem:
    images = row.texts("images")
    if not images:
        raise DataError(f"{row.place}: 'images' must list at least one image")
    item_id = row.text("id")
    options = row.texts("options")
    answer = row.choice("gt_answer", options) if options else _bare_letter(row)
    return BenchmarkItem(
        item_id=item_id,
        question_type=_setting(row, item_id),
        kind="mindcube_choice",
        question=row.text("question"),
        options=options,
        answer=answer,
        clip=Clip(tuple(root / image for image in images), is_images=True),
        prompt=row.optional_text("input_prompt"),
        max_new_tokens=MAX_NEW_TOKENS,
        tags={"setting": _setting(row, item_id)},
    )


def _bare_letter(row: Row) -> str:
    letter = row.text("gt_answer")
    if letter not in ("A", "B", "C", "D", "E"):
        raise DataError(f"{row.place}: 'gt_answer' must be a letter A-E, got {letter!r}")
    return letter


def _setting(row: Row, item_id: str) -> str:
    named = row.fields.get("setting")
    if isinstance(named, str) and named:
        return named
    for setting in SETTINGS:  # the benchmark's own way: the id names its setting
        if setting in item_id.lower():
            return setting
    raise DataError(f"{row.place}: neither 'setting' nor the id {item_id!r} names a setting")
