"""Replies of any model, from our files or from other people's logs, as one list of predictions.

Known rows: ours; lmms-eval's sample logs (`doc`, `resps`, `filtered_resps`) of its VSI-Bench and
VSI-SUPER tasks; VSI-Bench's flat rows (`question_type`, `ground_truth`, `prediction`); MindCube's
result rows (`gt_answer`, `answer`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spatial_ttt.errors import ConfigError, DataError
from spatial_ttt.eval.benchmarks import Benchmark, load_benchmark
from spatial_ttt.eval.benchmarks.mindcube import SETTINGS
from spatial_ttt.eval.benchmarks.records import Row, read_rows
from spatial_ttt.eval.predictions import PREDICTIONS, Prediction, read_log
from spatial_ttt.eval.question_types import answer_kind


def read_replies(path: Path) -> list[Prediction]:
    """All replies of a file, or of a run's folder."""
    if path.is_dir():
        path = path / PREDICTIONS
    if not path.is_file():
        raise DataError(
            f"{path} does not exist; give a predictions file or a finished run's folder"
        )
    rows = _rows(path)
    if {"item_id", "reply", "kind"} <= rows[0].fields.keys():
        return read_log(path)
    return [one for index, row in enumerate(rows) for one in _foreign(row, index)]


def read_scored_replies(path: Path, benchmark: str | None, data: Path | None) -> list[Prediction]:
    """All replies of a file; with a benchmark and its data, only if they match its answer key."""
    if (benchmark is None) != (data is None):
        raise ConfigError("an answer key needs both --benchmark and --data")
    predictions = read_replies(path)
    if benchmark is not None and data is not None:
        check_against_key(predictions, load_benchmark(benchmark, data, with_clips=False))
    return predictions


def check_against_key(predictions: Sequence[Prediction], key: Benchmark) -> None:
    """Raise `DataError` unless the replies and the answer key are about the very same items."""
    answers = {item.item_id: item.answer for item in key.items}
    replied = {prediction.item_id for prediction in predictions}
    extra_rows, extra_replies = sorted(answers.keys() - replied), sorted(replied - answers.keys())
    if extra_rows or extra_replies:
        raise DataError(
            f"the answer key {key.source} and the replies do not match: {len(extra_rows)} rows have "
            f"no reply{_first(extra_rows)}, {len(extra_replies)} replies have no row"
            f"{_first(extra_replies)}; nothing was scored"
        )
    for prediction in predictions:
        if prediction.answer != answers[prediction.item_id]:
            raise DataError(
                f"the item {prediction.item_id!r} has the answer {prediction.answer!r} with its "
                f"reply and {answers[prediction.item_id]!r} in {key.source}; nothing was scored"
            )


def _rows(path: Path) -> list[Row]:
    """Rows of a file; a whole lmms-eval results file keeps them under "logs"."""
    if path.suffix == ".json":
        whole = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(whole, dict) and isinstance(whole.get("logs"), list):
            return [Row(log, f"{path.name} log {n}") for n, log in enumerate(whole["logs"], 1)]
    return read_rows(path)


def _foreign(row: Row, index: int) -> list[Prediction]:
    fields = _document(row)
    document = Row(fields, row.place)
    item_id = str(fields.get("id", row.fields.get("doc_id", f"line-{index:05d}")))
    reply = _reply(row, fields)
    if fields.get("question_type") is not None:
        return [_vsi_bench(document, item_id, reply)]
    if fields.get("gt_answer") is not None:
        return [_mindcube(document, item_id, reply)]
    if fields.get("video_path") is not None:
        return _vsi_super(document, item_id, reply)
    raise DataError(
        f"{row.place}: neither a reply of ours nor a known log row; it has {sorted(row.fields)}"
    )


def _document(row: Row) -> Mapping[str, Any]:
    """The benchmark's record within a log row: `doc`, or the task's own score entry, or the row."""
    for key in ("doc", "vsibench_score", "score"):
        inner = row.fields.get(key)
        if isinstance(inner, dict):
            return inner
    return row.fields


def _reply(row: Row, document: Mapping[str, Any]) -> str:
    for source, key in (
        (row.fields, "filtered_resps"),
        (row.fields, "resps"),
        (document, "prediction"),
        (document, "answer" if "gt_answer" in document else "prediction"),
    ):
        value = source.get(key)
        while isinstance(value, list) and len(value) == 1:  # [["text"]]: one request, one sample
            value = value[0]
        if isinstance(value, str):
            return value
        if value is not None:
            raise DataError(f"{row.place}: {key!r} must hold one text, got {value!r}")
    raise DataError(f"{row.place}: no reply (filtered_resps, resps, prediction or answer)")


def _vsi_bench(row: Row, item_id: str, reply: str) -> Prediction:
    question_type = row.text("question_type")
    kind = answer_kind(question_type)
    if kind is None:
        raise DataError(f"{row.place}: VSI-Bench has no question type {question_type!r}")
    options = row.texts("options")
    scene = tuple(str(row.fields[key]) for key in ("dataset", "scene_name") if key in row.fields)
    return Prediction(
        item_id=item_id,
        question_type=question_type,
        kind=kind,
        answer=row.text("ground_truth"),
        reply=reply,
        question=str(row.fields.get("question", "")),
        options=options,
        clip=("/".join(scene) + ".mp4",) if scene else (),
    )


def _mindcube(row: Row, item_id: str, reply: str) -> Prediction:
    setting = next((name for name in SETTINGS if name in item_id.lower()), "other")
    return Prediction(
        item_id=item_id,
        question_type=setting,
        kind="mindcube_choice",
        answer=row.text("gt_answer"),
        reply=reply,
        question=str(row.fields.get("question", "")),
        options=row.texts("options"),
        clip=row.texts("images"),
    )


def _vsi_super(row: Row, item_id: str, reply: str) -> list[Prediction]:
    clip = (row.text("video_path"),)
    if row.fields.get("options"):
        kind, name = "choice", "vsr"
    else:
        kind, name = "number", "vsc"
    if row.fields.get("answers") is None:
        return [
            Prediction(
                item_id=item_id,
                question_type=name,
                kind="choice" if kind == "choice" else "number",
                answer=row.text("answer"),
                reply=reply,
                options=row.texts("options"),
                clip=clip,
            )
        ]
    answers, times = row.numbers("answers"), row.numbers("query_times")
    replies = _reply_list(reply, row.place)
    if not len(replies) == len(answers) == len(times):
        raise DataError(
            f"{row.place}: {len(replies)} replies, {len(answers)} answers, {len(times)} query_times; "
            "each query needs one of each (nothing is cut to the shortest list)"
        )
    return [
        Prediction(
            item_id=f"{item_id}@{time:g}s",
            question_type="vsc_streaming",
            kind="number",
            answer=f"{answer:g}",
            reply=one,
            clip=clip,
            ask_time_s=time,
        )
        for time, answer, one in zip(times, answers, replies, strict=True)
    ]


def _reply_list(reply: str, place: str) -> list[str]:
    try:
        values = json.loads(reply)
    except json.JSONDecodeError:
        values = None
    if not isinstance(values, list):
        raise DataError(f"{place}: a streaming reply must be a JSON list, got {reply!r}")
    return [str(value) for value in values]


def _first(names: Sequence[str]) -> str:
    return f" (first: {names[0]!r})" if names else ""
