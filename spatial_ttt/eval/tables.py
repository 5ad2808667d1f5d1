"""Plain-text tables for the terminal; columns as wide as their widest cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spatial_ttt.eval.baselines import BaselineRow
from spatial_ttt.eval.published import published_table


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-align the first column, right-align the others."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join((first, *others)).rstrip()

    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, rows)])


def points(value: float | None) -> str:
    """A score in points with one decimal; a dash when there is none."""
    return "-" if value is None else f"{value:.1f}"


def baseline_table(rows: Mapping[str, BaselineRow]) -> str:
    """One line per type: n, every row of ours, the published frequency row, the answer given."""
    published = published_table("vsi-bench")
    types = list(next(iter(rows.values())))
    header = ["type", "n", *rows, "published", "frequency's answer"]
    lines = [
        [
            name,
            str(rows["frequency"][name].n),
            *(points(row[name].score) for row in rows.values()),
            points(published.value("chance (frequency)", name) if published else None),
            rows["frequency"][name].answer,
        ]
        for name in types
    ]
    return text_table(header, lines)
