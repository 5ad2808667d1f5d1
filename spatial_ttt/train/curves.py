"""Loss and held-out scores of a run as one picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def draw(metrics: Path, target: Path) -> None:
    """Read a metrics.jsonl and write a PNG: losses on the left, held-out scores on the right."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps = [r for r in records if "loss" in r and not r.get("blind")]
    probes = [r for r in records if "probe" in r]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 5))
    for name in sorted(
        {key for r in steps for key in r if "loss" in key or key.startswith("dense_")}
    ):
        rows = [r for r in steps if name in r]
        left.plot([r["step"] for r in rows], [r[name] for r in rows], label=name, linewidth=1)
    left.set(xlabel="step", ylabel="loss", yscale="log")
    _scores(right, probes)
    for axis in (left, right):
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(target, dpi=90)
    pyplot.close(figure)


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
