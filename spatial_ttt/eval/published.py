"""Published figures to stand beside ours; `published.json` holds them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """One benchmark's published rows, in points."""

    columns: tuple[str, ...]
    rows: dict[str, tuple[float | None, ...]]

    def value(self, row: str, column: str) -> float | None:
        """One figure; None when it was not published."""
        if row not in self.rows or column not in self.columns:
            return None
        return self.rows[row][self.columns.index(column)]


def published_table(benchmark: str) -> PublishedTable | None:
    """The published rows of a benchmark; None for one that has none."""
    text = resources.files("spatial_ttt.eval").joinpath("published.json").read_text("utf-8")
    table = json.loads(text).get(benchmark)
    if table is None:
        return None
    rows = {name: tuple(values) for name, values in table["rows"].items()}
    return PublishedTable(tuple(table["columns"]), rows)
