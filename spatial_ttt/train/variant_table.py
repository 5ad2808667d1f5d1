"""What ablations found: tables in Markdown and a picture, means over seeds with their spread.

The figure of a run is how much better it answers with the video than without, in points: the mean over types of
the score with it minus that without it, for homes of each stage of the plan. Runs that went on from different models
are never compared: each start has tables of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev, variance
from typing import Any

from spatial_ttt.errors import ConfigError

Row = Mapping[str, Any]

BASELINE = "whole"
SIGN = "*"
_NOTE = (
    f"Differences are paired by seed; {SIGN} marks those beyond twice their standard error over seeds, whose spread is "
    f"pooled over the variants of a line. The sign says little: nine equal variants with two seeds each would "
    f"have it in one comparison of nine, with three seeds in one of twelve."
)


def show(results: Path, plot: Path | None = None, order: Sequence[str] = ()) -> int:
    """Print the tables, draw the newest runs, variants in this order first; 0 when there is something to show."""
    groups = grouped(read_rows(results), order)
    for title, rows in groups.items():
        sys.stdout.write(f"## Runs {title}\n\n{table(rows)}\n")
    if plot is not None:
        draw(next(iter(groups.values())), plot)
    return 0


def read_rows(results: Path) -> list[Row]:
    """The lines of a results file; of several about one start, variant and seed the last."""
    if not results.exists():
        raise ConfigError(f"there is no {results}; run the variants first")
    rows = [json.loads(line) for line in results.read_text().splitlines() if line]
    if not rows:
        raise ConfigError(f"{results} is empty; run the variants first")
    latest = {(started_from(row), row["variant"], row["seed"]): row for row in rows}
    return list(latest.values())


def started_from(row: Row) -> str:
    """What a run went on from and how it was told to attend; lines without arguments began from scratch."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--resume")
    parser.add_argument("--attention")
    given, _ = parser.parse_known_args(row.get("arguments", []))
    start = f"on from {Path(given.resume).name}" if given.resume else "from scratch"
    return f"{start}, attention {given.attention}" if given.attention else start


def grouped(rows: Sequence[Row], order: Sequence[str] = ()) -> dict[str, list[Row]]:
    """Rows by what they started from, the start of the last line first; variants in this order, then by seed."""
    places = {name: at for at, name in enumerate(order)}
    starts = dict.fromkeys(started_from(row) for row in reversed(rows))
    ordered = sorted(rows, key=lambda row: (places.get(row["variant"], len(places)), row["seed"]))
    return {start: [row for row in ordered if started_from(row) == start] for start in starts}


def gain(row: Row, stage: str, kind: str | None = None) -> float:
    """Points that the video is worth in a stage, to one type or in the mean; nan where it was not asked about."""
    if kind is not None:
        return score(row, stage, kind) - score(row, stage, kind, "blind")
    found = row["means"].get(stage, {})
    if "full" not in found or "blind" not in found:
        return math.nan
    return 100.0 * (float(found["full"]) - float(found["blind"]))


def score(row: Row, stage: str, kind: str, how: str = "full") -> float:
    """A type's score, 0..100; nan where it was not asked."""
    found = row["scores"].get(stage, {}).get(how, {}).get(kind)
    return 100.0 * float(found[0]) if found else math.nan


def spread(values: Sequence[float], *, signed: bool = False) -> str:
    """Mean and, of several, standard deviation over seeds."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "-"
    text = f"{mean(known):+.1f}" if signed else f"{mean(known):.1f}"
    return text if len(known) == 1 else f"{text} ± {stdev(known):.1f}"


def differences(rows: Sequence[Row], stage: str, kind: str | None = None) -> dict[str, list[float]]:
    """Gain of each variant minus that of the baseline with the same seed, for the seeds that both have."""
    base = {row["seed"]: gain(row, stage, kind) for row in rows if row["variant"] == BASELINE}
    found: dict[str, list[float]] = {name: [] for name in _variants(rows) if name != BASELINE}
    for row in rows:
        if row["variant"] in found:
            found[row["variant"]].append(gain(row, stage, kind) - base.get(row["seed"], math.nan))
    return {name: [v for v in values if not math.isnan(v)] for name, values in found.items()}


def told(by_variant: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """Mean and spread of each variant's differences, with the sign where it is beyond twice the standard error.

    The spread behind the error is pooled over the variants: that of two seeds alone would mark three of ten
    differences between equals.
    """
    several = [values for values in by_variant.values() if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    squares = sum(variance(values) * (len(values) - 1) for values in several)
    cells = {}
    for name, values in by_variant.items():
        cells[name] = spread(values, signed=True)
        if len(values) > 1:
            error = math.sqrt(squares / freedom / len(values))
            cells[name] += f" {SIGN}" if abs(mean(values)) > 2 * error else ""
    return cells


def table(rows: Sequence[Row]) -> str:
    """Gains by stage, every type of each stage, then gains of the last stage against the baseline's: Markdown."""
    stages, names = _stages(rows), _variants(rows)
    against = told(differences(rows, stages[-1]))
    heads = [
        *("variant", "seeds", "steps", "clips made"),
        *(f"{stage}: full - blind" for stage in stages),
        f"{stages[-1]}: against {BASELINE}",
    ]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for name in names:
        mine = [row for row in rows if row["variant"] == name]
        cells = [name, str(len(mine)), _range(mine, "steps"), _range(mine, "clips")]
        cells += [spread([gain(row, stage) for row in mine], signed=True) for stage in stages]
        lines.append(_line([*cells, against.get(name, "-")]))
    for stage in stages:
        lines += ["", f"Scores of {stage} by type, with video (mean of the seeds):", ""]
        lines += _by_kind(rows, names, stage)
    if BASELINE in names and len(names) > 1:
        lines += [
            "",
            f"Gains (full - blind) of {stages[-1]} by type, minus those of {BASELINE}:",
            "",
        ]
        lines += [*_against(rows, stages[-1]), "", _NOTE]
    return "\n".join(lines) + "\n"


def _by_kind(rows: Sequence[Row], names: Sequence[str], stage: str) -> list[str]:
    lines = [_line(["type", *names]), _line(["---"] * (len(names) + 1))]
    for kind in _kinds(rows, stage):
        cells = [
            spread([score(row, stage, kind) for row in rows if row["variant"] == name])
            for name in names
        ]
        lines.append(_line([kind, *cells]))
    return lines


def _against(rows: Sequence[Row], stage: str) -> list[str]:
    names = [name for name in _variants(rows) if name != BASELINE]
    lines = [_line(["type", *names]), _line(["---"] * (len(names) + 1))]
    for kind in (*_kinds(rows, stage), None):
        cells = told(differences(rows, stage, kind))
        lines.append(_line([kind or "mean", *(cells[name] for name in names)]))
    return lines


def _kinds(rows: Sequence[Row], stage: str) -> list[str]:
    kinds: dict[str, None] = {}
    for row in rows:
        kinds |= dict.fromkeys(row["scores"].get(stage, {}).get("full", {}))
    return list(kinds)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _range(rows: Sequence[Row], name: str) -> str:
    """A count, or the least and most of several."""
    values = sorted(int(row[name]) for row in rows)
    if values[0] == values[-1]:
        return f"{values[0]:,}"
    return f"{values[0]:,} to {values[-1]:,}"


def _stages(rows: Sequence[Row]) -> list[str]:
    found: dict[str, None] = {}
    for row in rows:
        found |= dict.fromkeys(row["means"])
    return list(found)


def _variants(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["variant"] for row in rows))


def draw(rows: Sequence[Row], target: Path) -> None:
    """Bars of the gains by variant and stage, every seed a dot; the suffix says which kind of file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    stages, names = _stages(rows), _variants(rows)
    figure, axis = pyplot.subplots(figsize=(1.1 * len(names) + 2.5, 4.5))
    width = 0.8 / len(stages)
    for at, stage in enumerate(stages):
        places = [n + (at - (len(stages) - 1) / 2) * width for n in range(len(names))]
        by_name = [[gain(row, stage) for row in rows if row["variant"] == name] for name in names]
        axis.bar(places, [mean(gains) for gains in by_name], width, label=stage, alpha=0.6)
        for place, gains in zip(places, by_name, strict=True):
            axis.plot([place] * len(gains), gains, "k.", markersize=4)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axis.set(ylabel="points over blind")
    axis.legend(fontsize=8)
    figure.tight_layout()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110)
    pyplot.close(figure)
