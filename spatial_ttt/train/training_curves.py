"""Loss, accuracy, rates and speed of a run as one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spatial_ttt.train.logs import read_metrics

CURVES = "curves.png"
_PANELS = (
    ("loss per target (nats)", ("loss", "val_loss")),
    ("share of targets", ("token_accuracy", "val_token_accuracy", "exact_answers", "val_exact_answers")),
    ("share of the peak rate", ("rate",)),
    ("tokens per second", ("tokens_per_second",)),
)  # fmt: skip


def draw(metrics: Path, target: Path) -> None:
    """Read a metrics.jsonl and write a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    records = read_metrics(metrics)
    figure, axes = pyplot.subplots(2, 2, figsize=(12, 8))
    for axis, (title, names) in zip(axes.flat, _PANELS, strict=True):
        _panel(axis, records, names)
        axis.set(xlabel="step", title=title)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(target, dpi=100)
    pyplot.close(figure)


def _panel(axis: Any, records: list[dict[str, Any]], names: tuple[str, ...]) -> None:
    for name in names:
        rows = [(r["step"], r[name]) for r in records if r.get(name) is not None]
        if rows:
            held_out = name.startswith("val_")
            axis.plot(
                *zip(*rows, strict=True),
                label=name,
                linewidth=2 if held_out else 1,
                marker="." if held_out else None,
            )
