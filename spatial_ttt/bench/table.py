"""The lines of a run as text: one table per measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from spatial_ttt.bench.record import Line

Column = tuple[str, str, str]
"""Heading, dotted path into a line, format."""

_COMMON: tuple[Column, ...] = (("mode", "mode", "s"), ("frames", "frames", ",d"))
_PEAK: Column = ("peak GiB", "peak_gib", ".2f")
_FIRST: Column = ("first token s", "seconds_to_first_token", ".3f")
_LATENCY: tuple[Column, ...] = tuple(
    (f"{name} ms", f"{name}_ms", ".2f") for name in ("p50", "p90", "p99", "max")
)

COLUMNS: dict[str, tuple[Column, ...]] = {
    "prefill": (
        *_COMMON,
        ("slots/piece", "slots_per_piece", "d"),
        _FIRST,
        _PEAK,
        ("TFLOP", "tflop", ".1f"),
        ("MFU", "mfu", ".1%"),
        ("weights GiB", "memory_gib.weights", ".2f"),
        ("fast GiB", "memory_gib.fast_weights_windows_held", ".2f"),
        ("anchors GiB", "memory_gib.anchors", ".2f"),
        ("frames GiB", "memory_gib.frames", ".2f"),
        ("rest GiB", "memory_gib.activations", ".2f"),
    ),
    "question": (
        *_COMMON,
        ("first token p50 s", "seconds_to_first_token", ".4f"),
        ("questions", "questions", "d"),
        ("all first tokens s", "seconds_first_tokens", ".3f"),
        ("all answers s", "seconds_all_answers", ".3f"),
        ("tokens/s", "tokens_per_second", ".1f"),
        _PEAK,
    ),
    "live": (
        *_COMMON,
        ("asked every", "asks_every", "d"),
        *_LATENCY,
        ("frames/s", "frames_per_second", ".1f"),
        _FIRST,
        _PEAK,
    ),
    "bounded": (
        *_COMMON,
        ("frames/s", "frames_per_second", ".1f"),
        ("first ms/slot", "first.ms_per_slot", ".3f"),
        ("last ms/slot", "last.ms_per_slot", ".3f"),
        ("time ratio", "time_ratio", ".3f"),
        ("state ratio", "state_ratio", ".3f"),
        ("peak ratio", "peak_ratio", ".3f"),
        _PEAK,
    ),
    "sessions": (
        *_COMMON,
        ("sessions", "sessions", "d"),
        ("x real time", "real_time_factor", ".2f"),
        ("frames/s", "frames_per_second", ".1f"),
        *_LATENCY,
        ("p99 wait ms", "p99_wait_ms", ".1f"),
        ("MiB/session", "bytes_per_session", "MiB"),
        _PEAK,
    ),
}


def render(lines: Sequence[Line]) -> str:
    """A table per measure, in the order of the lines; what is unknown is a dash."""
    parts = []
    for measure in dict.fromkeys(line["what"] for line in lines):
        rows = [line for line in lines if line["what"] == measure]
        parts.append(f"{measure}\n{_table(rows, COLUMNS[measure])}")
    return "\n\n".join(parts)


def _table(rows: Sequence[Line], columns: Sequence[Column]) -> str:
    cells = [[heading for heading, _, _ in columns]]
    cells += [[_cell(row, path, form) for _, path, form in columns] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in cells]
    for number, row in enumerate(rows):
        if "failed" in row:
            lines[number + 1] += f"  {row['failed'].partition(':')[0]}"
    return "\n".join(lines)


def _cell(row: Line, path: str, form: str) -> str:
    value: Any = row
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if value is None:
        return "-"
    write: Callable[[Any], str] = _mebibytes if form == "MiB" else lambda v: format(v, form)
    return write(value)


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.1f}"
