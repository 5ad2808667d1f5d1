"""Loss and held-out scores of a run as one picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

AROUND = 9
"""Noted steps that a running mean is over."""


def draw(metrics: Path, target: Path) -> None:
    """Read a metrics.jsonl and write a PNG: losses by stage, dense read-outs, held-out scores on the right.

    Losses are running means: one step's clips are easier than another's.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps = [r for r in records if "loss" in r and not r.get("blind")]
    probes = [r for r in records if "probe" in r]
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(18, 5))
    for label in dict.fromkeys(_label(r) for r in steps):
        _mean_line(left, label, "loss", [r for r in steps if _label(r) == label])
    for name in sorted({key for r in steps for key in r if key.startswith("dense_")}):
        _mean_line(middle, name, name, [r for r in steps if name in r and not _is_stream(r)])
    left.set(xlabel="step", ylabel="loss")
    middle.set(xlabel="step", ylabel="loss of a read-out, streams left out", yscale="log")
    _scores(right, probes)
    for axis in (left, middle, right):
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(target, dpi=90)
    pyplot.close(figure)


def _is_stream(record: dict[str, Any]) -> bool:
    """Of streams of several homes only counts are read out."""
    return "dense_counts" in record and "dense_pose" not in record


def _label(record: dict[str, Any]) -> str:
    return record["stage"] + (", streams" if _is_stream(record) else "")


def _mean_line(axis: Any, label: str, name: str, rows: Sequence[dict[str, Any]]) -> None:
    """A running mean over the steps around each, if there are any."""
    if not rows:
        return
    values = np.array([r[name] for r in rows])
    width = np.ones(min(AROUND, len(values)))
    mean = np.convolve(values, width, "same") / np.convolve(np.ones(len(values)), width, "same")
    axis.plot([r["step"] for r in rows], mean, label=label, linewidth=1)


def _scores(axis: Any, probes: list[dict[str, Any]]) -> None:
    if not probes:
        return
    shown = [r for r in probes if r["probe"] == probes[-1]["probe"]]
    for kind in shown[-1]["scores"]["full"]:
        rows = [
            (r["step"], 100 * r["scores"]["full"][kind][0])
            for r in shown
            if kind in r["scores"]["full"]
        ]
        axis.plot(*zip(*rows, strict=True), label=kind, marker=".")
    axis.set(
        xlabel="step", ylabel="score", title=f"held-out homes: {shown[-1]['probe']}", ylim=(0, 100)
    )
