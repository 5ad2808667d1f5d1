"""All controls of a benchmark side by side: one folder per control -> controls.json, controls.html.

The counting controls share one figure: replies to the clip as it is, to the clip played twice, and
summed over pieces, each against the truth. A memory that counts things stays on the line when the clip is
played twice; a sum over pieces needs no memory and does not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spatial_ttt.errors import DataError
from spatial_ttt.eval import figures
from spatial_ttt.eval.compare import Comparison, compare, comparison_json, restrict
from spatial_ttt.eval.controls import CONTROLS
from spatial_ttt.eval.metrics import FloatArray
from spatial_ttt.eval.page import Page
from spatial_ttt.eval.parsing import official_number
from spatial_ttt.eval.predictions import PREDICTIONS, RUN, Prediction, read_log

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLAIN = "none"
COUNTING_FIGURE = ("none", "played_twice", "segment_and_sum")


def report_controls(folder: Path, refused: Mapping[str, str]) -> dict[str, Comparison]:
    """Compare every control's run under `folder` with the plain one, and write the reports.

    `refused` names the controls the model does not offer, with its reasons.
    """
    runs = {
        name: read_log(folder / name / PREDICTIONS)
        for name in CONTROLS
        if name not in refused and (folder / name / PREDICTIONS).is_file()
    }
    if PLAIN not in runs or len(runs) < 2:
        raise DataError(
            f"{folder} needs the runs {PLAIN}/ and at least one control's; it has {sorted(runs)}"
        )
    compared = {
        name: compare(restrict(runs[PLAIN], replies), replies)
        for name, replies in runs.items()
        if name != PLAIN
    }
    ratios = {
        name: count_ratio(runs[PLAIN], runs[name]) for name in COUNTING_FIGURE if name in runs
    }
    run = json.loads((folder / PLAIN / RUN).read_text(encoding="utf-8"))
    content = {
        "run": run,
        "controls": {name: comparison_json(one) for name, one in compared.items()},
        "count_ratios": ratios,
        "not_offered": dict(refused),
    }
    text = json.dumps(content, indent=2)
    (folder / "controls.json").write_text(text + "\n", encoding="utf-8")
    page = _page(content, runs, compared)
    (folder / "controls.html").write_text(page, encoding="utf-8")
    return compared


def count_ratio(
    plain: Sequence[Prediction], other: Sequence[Prediction]
) -> dict[str, float | int | None]:
    """How a control's counts relate to the plain run's: the median of their ratios (1: unmoved)."""
    first = {one.item_id: official_number(one.reply) for one in plain}
    ratios = [
        count / first_count
        for one in other
        if (count := official_number(one.reply)) is not None
        and (first_count := first.get(one.item_id)) is not None
        and first_count > 0
    ]
    return {"median": float(np.median(ratios)) if ratios else None, "n": len(ratios)}


def counting_figure(runs: Mapping[str, Sequence[Prediction]]) -> str | None:
    """Replied against true counts for the counting controls; None when only the plain run is there."""
    shown = [name for name in COUNTING_FIGURE if name in runs]
    if len(shown) < 2:
        return None
    asked = set.intersection(*({one.item_id for one in runs[name]} for name in shown))
    counts = {name: _count_pairs(runs[name], asked) for name in shown}
    top = 1.05 * max((float(pairs.max()) for pairs in counts.values() if pairs.size), default=1.0)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(shown), sharex=True, sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, shown, strict=True):
            truth, replied = counts[name].T
            axes.scatter(truth, replied, s=14, color=figures.OURS, alpha=0.5, linewidths=0)
            line = np.linspace(0.0, top, 200)
            axes.plot(line, line, color=figures.INK, linewidth=0.8, label="true")
            axes.plot(line, 2 * line, color=figures.FAINT, linewidth=0.8, label="twice")
            # One wild reply would squeeze all others into a corner of linear axes.
            axes.set(xscale="symlog", yscale="symlog", xlim=(0, top), ylim=(0, top))
            axes.set_title({"none": "as it is"}.get(name, name.replace("_", " ")), fontsize=9)
            axes.set_xlabel("true count")
        panels[0].set_ylabel("replied count")
        panels[-1].legend(fontsize=7, frameon=False)

    return figures.svg(draw, (3.0 * len(shown), 3.0))


def _count_pairs(replies: Sequence[Prediction], asked: set[str]) -> FloatArray:
    """True and replied counts of the items in `asked` whose reply is a number, [n, 2]."""
    pairs = [
        (float(one.answer), value)
        for one in replies
        if one.item_id in asked and (value := official_number(one.reply)) is not None
    ]
    return np.array(pairs, dtype=np.float64).reshape(-1, 2)


def _page(
    content: Mapping[str, Any],
    runs: Mapping[str, Sequence[Prediction]],
    compared: Mapping[str, Comparison],
) -> str:
    run = content["run"]
    page = Page(f"Controls: {run['benchmark']}, {run['model']['name']}")
    page.text("Each control against the plain streamed run, paired by question.", kind="faint")
    rows = []
    for name, one in compared.items():
        line = one.lines["micro"]
        rows.append(
            [
                name,
                str(line.n),
                f"{line.a:.1f}",
                f"{line.b:.1f}",
                f"{line.paired.difference:+.1f}",
                f"{line.paired.interval.low:+.1f} to {line.paired.interval.high:+.1f}",
                f"{one.num_equal_replies} of {one.num_items}",
            ]
        )
    page.table(["control", "n", "plain", "control", "change", "95 %", "equal replies"], rows)
    for name in compared:
        page.text(f"{name}: {CONTROLS[name].about}", kind="faint")
    types = [name for name in next(iter(compared.values())).lines if name not in ("macro", "micro")]
    for name, reason in content["not_offered"].items():
        page.text(f"{name} was not run: {reason}", kind="warn")
    page.heading("Change per type")
    page.table(
        ["control", *types],
        [
            [
                name,
                *(
                    f"{one.lines[kind].paired.difference:+.1f}" if kind in one.lines else ""
                    for kind in types
                ),
            ]
            for name, one in compared.items()
        ],
    )
    figure = counting_figure(runs)
    if figure is not None:
        page.heading("Counting: played twice, and summed over pieces")
        page.figure(figure, "Replied against true counts; the pale line is double the truth.")
        for name, ratio in content["count_ratios"].items():
            if ratio["median"] is not None:
                page.text(
                    f"{name}: median count {ratio['median']:.2f} times the plain run's "
                    f"({ratio['n']} questions)"
                )
    page.heading("What was run")
    page.facts({key: str(value) for key, value in run.items()})
    return page.render()
