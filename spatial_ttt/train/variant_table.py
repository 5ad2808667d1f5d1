"""What ablations found: a table in Markdown and a picture, means over seeds with their spread.

The figure of a run is how much better it answers with the video than without, in points: the mean over types of
the score with it minus that without it, for homes of each stage of the plan.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from spatial_ttt.errors import ConfigError

Row = Mapping[str, Any]


def show(results: Path, plot: Path | None = None, order: Sequence[str] = ()) -> int:
    """Print the table, draw the picture, variants in this order first; 0 when there is something to show."""
    rows = read_rows(results)
    places = {name: at for at, name in enumerate(order)}
    rows.sort(key=lambda row: (places.get(row["variant"], len(places)), row["seed"]))
    sys.stdout.write(table(rows))
    if plot is not None:
        draw(rows, plot)
    return 0


def read_rows(results: Path) -> list[Row]:
    """The lines of a results file; of several about one variant and seed the last."""
    if not results.exists():
        raise ConfigError(f"there is no {results}; run the variants first")
    rows = [json.loads(line) for line in results.read_text().splitlines() if line]
    if not rows:
        raise ConfigError(f"{results} is empty; run the variants first")
    latest = {(row["variant"], row["seed"]): row for row in rows}
    return list(latest.values())


def gain(row: Row, stage: str) -> float:
    """Points that the video is worth in a stage; nan where it was not asked about."""
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


def table(rows: Sequence[Row]) -> str:
    """Gains by stage, then every type of the last stage: Markdown."""
    stages, names = _stages(rows), _variants(rows)
    heads = [
        "variant",
        "seeds",
        "steps",
        "clips made",
        *(f"{stage}: full - blind" for stage in stages),
    ]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for name in names:
        mine = [row for row in rows if row["variant"] == name]
        cells = [name, str(len(mine)), _range(mine, "steps"), _range(mine, "clips")]
        cells += [spread([gain(row, stage) for row in mine], signed=True) for stage in stages]
        lines.append(_line(cells))
    for stage in stages:
        lines += ["", f"Scores of {stage} by type, with video (mean of the seeds):", ""]
        lines += _by_kind(rows, names, stage)
    return "\n".join(lines) + "\n"


def _by_kind(rows: Sequence[Row], names: Sequence[str], stage: str) -> list[str]:
    kinds: dict[str, None] = {}
    for row in rows:
        kinds |= dict.fromkeys(row["scores"].get(stage, {}).get("full", {}))
    lines = [_line(["type", *names]), _line(["---"] * (len(names) + 1))]
    for kind in kinds:
        cells = [
            spread([score(row, stage, kind) for row in rows if row["variant"] == name])
            for name in names
        ]
        lines.append(_line([kind, *cells]))
    return lines


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
    """Bars of the gains by variant and stage, every seed a dot."""
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
