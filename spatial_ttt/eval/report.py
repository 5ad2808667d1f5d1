"""Replies -> report.json (every figure) and report.html (the same for people, with pictures)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spatial_ttt.errors import DataError
from spatial_ttt.eval import figures, thumbnails
from spatial_ttt.eval.page import Page
from spatial_ttt.eval.predictions import PREDICTIONS, RUN, Prediction, read_log
from spatial_ttt.eval.published import PublishedTable, published_table
from spatial_ttt.eval.question_types import DIRECTION
from spatial_ttt.eval.scoring import Summary, TypeScore, summarise, summary_json
from spatial_ttt.eval.tables import points, text_table

REPORT_JSON, REPORT_HTML = "report.json", "report.html"
NUM_FAILURES = 16


def report_folder(folder: Path) -> Summary:
    """Write both reports of a finished run into its folder."""
    predictions = read_log(folder / PREDICTIONS)
    path = folder / RUN
    if not path.is_file():
        raise DataError(f"{folder} has no {RUN}: it is no run's folder; use `eval score` instead")
    return write_report(folder, predictions, json.loads(path.read_text(encoding="utf-8")))


def write_report(
    folder: Path, predictions: Sequence[Prediction], run: Mapping[str, Any]
) -> Summary:
    """Write report.json and report.html for these replies; `run` says where they come from."""
    summary = summarise(predictions)
    folder.mkdir(parents=True, exist_ok=True)
    content = {"run": dict(run), "scores": summary_json(summary), **details_json(predictions)}
    text = json.dumps(content, indent=2, sort_keys=False, allow_nan=False)
    (folder / REPORT_JSON).write_text(text + "\n", encoding="utf-8")
    page = build_page(predictions, summary, run)
    (folder / REPORT_HTML).write_text(page, encoding="utf-8")
    return summary


def details_json(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """What the figures show, as numbers: lengths, confusions, failures."""
    by_length: dict[str, list[float]] = {}
    for one in predictions:
        if one.stream_minutes is not None:
            by_length.setdefault(f"{one.stream_minutes:.4g}", []).append(one.score().official)
    confusions = {}
    for name in sorted({one.question_type for one in predictions}):
        group = [one for one in predictions if one.question_type == name]
        if name.startswith("object_rel_direction") and all(one.options for one in group):
            texts, counts = figures.confusion_matrix(group)
            confusions[name] = {"options": texts, "counts": counts.tolist()}
    return {
        "score_by_minutes": {
            minutes: {"score": 100 * sum(scores) / len(scores), "n": len(scores)}
            for minutes, scores in sorted(by_length.items(), key=lambda pair: float(pair[0]))
        },
        "confusions": confusions,
        "failures": [one.item_id for one in pick_failures(predictions)],
    }


def pick_failures(predictions: Sequence[Prediction], count: int = NUM_FAILURES) -> list[Prediction]:
    """The worst replies, the types taken in turn so that none fills the list."""
    by_type: dict[str, list[Prediction]] = {}
    for one in sorted(predictions, key=lambda one: one.score().official):
        if one.score().official < 1:
            by_type.setdefault(one.question_type, []).append(one)
    queues = [by_type[name] for name in sorted(by_type)]
    turns = max((len(queue) for queue in queues), default=0)
    in_turn = [queue[turn] for turn in range(turns) for queue in queues if turn < len(queue)]
    return in_turn[:count]


def build_page(predictions: Sequence[Prediction], summary: Summary, run: Mapping[str, Any]) -> str:
    """report.html as text."""
    benchmark = str(run.get("benchmark", "replies"))
    published = published_table(benchmark)
    model = run.get("model")
    name = model["name"] if isinstance(model, Mapping) else str(model or "")
    page = Page(f"{benchmark}: {name}" if name else benchmark)
    _headline(page, summary, run)
    page.heading("Scores")
    page.table(*score_rows(summary, published))
    page.text(
        "Points. 95 % intervals resample clips, not questions. The lenient reading is shown beside "
        "the official one and never counts.",
        kind="faint",
    )
    page.figure(figures.type_bars(summary, published), "Score per type with 95 % interval.")
    for title, svg, caption in (
        ("Stream length", figures.length_curve(predictions), "Score against stream length."),
        (
            "Directions",
            figures.direction_confusion(predictions),
            "Counts of true against replied direction; colour is the share of the row.",
        ),
        (
            "Numbers",
            figures.number_scatter(predictions),
            "Replied against true value, logarithmic; the band is half the truth either way: "
            "outside it a reply scores 0.",
        ),
    ):
        if svg is not None:
            page.heading(title)
            page.figure(svg, caption)
    _failures(page, predictions)
    page.heading("What was run")
    page.facts({key: _plain(value) for key, value in run.items()})
    return page.render()


def score_rows(
    summary: Summary, published: PublishedTable | None
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the score table, published columns at the right."""
    shown = {*summary.types, "overall"}
    rows_published = [
        name
        for name in (published.rows if published else ())
        if any(published is not None and published.value(name, key) is not None for key in shown)
    ]
    header = ["type", "n", "score", "95 %", "lenient", *rows_published]

    def row(label: str, line: TypeScore, key: str) -> list[str]:
        cells = [points(published.value(name, key)) if published else "" for name in rows_published]
        note = f" (without {', '.join(line.missing)})" if line.missing else ""
        span = f"{line.interval.low:.1f} - {line.interval.high:.1f}"
        return [label + note, str(line.n), points(line.score), span, points(line.lenient), *cells]

    rows = []
    for name, line in summary.types.items():
        rows.append(row(name, line, name))
        if name == DIRECTION:
            rows += [row(f"  {sub}", part, sub) for sub, part in summary.subtypes.items()]
    if summary.overall is not None:
        rows.append(row("overall (mean of the eight)", summary.overall, "overall"))
    else:
        rows.append(row("mean over types", summary.macro, "-"))
    is_vsi = summary.missing or summary.overall is not None
    rows.append(row("mean over questions", summary.micro, "-" if is_vsi else "overall"))
    return header, rows


def score_table(summary: Summary, benchmark: str) -> str:
    """The scores for the terminal."""
    table = text_table(*score_rows(summary, published_table(benchmark)))
    notes = [f"{summary.num_empty} empty replies, {summary.num_unreadable} unreadable ones."]
    if summary.missing:
        notes.append(f"No overall score: no questions of {', '.join(summary.missing)}.")
    return "\n".join([table, "", *notes])


def _headline(page: Page, summary: Summary, run: Mapping[str, Any]) -> None:
    line = summary.overall or summary.micro
    what = "overall, mean of the eight types" if summary.overall else "mean over questions"
    page.text(f"{line.score:.1f}", kind="big")
    page.text(
        f"{what}; 95 % interval {line.interval.low:.1f} to {line.interval.high:.1f}; "
        f"{summary.micro.n} questions; control: {run.get('control', 'unknown')}",
        kind="faint",
    )
    if run.get("is_complete") is False:
        page.text("A part of the benchmark only: not comparable with full figures.", kind="warn")
    if summary.missing:
        page.text(f"No overall score: no questions of {', '.join(summary.missing)}.", kind="warn")
    if summary.num_unreadable:
        page.text(
            f"{summary.num_unreadable} of {summary.micro.n} replies hold no readable answer "
            f"({summary.num_empty} are empty); they score 0.",
            kind="warn",
        )


def _failures(page: Page, predictions: Sequence[Prediction]) -> None:
    failures = pick_failures(predictions)
    if not failures:
        return
    page.heading("Failures")
    for one in failures:
        score = one.score()
        options = "\n".join(one.options)
        page.case(
            f"{one.question_type} · {one.item_id}",
            f"{one.question}\n{options}".strip(),
            f"said {one.reply[:300]!r}, read as {score.parsed!r}, true {one.answer!r}: "
            f"{100 * score.official:.0f} points",
            thumbnails.data_urls(one.clip, until_s=one.ask_time_s),
        )


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_plain(inner)}" for key, inner in value.items())
    return str(value)
