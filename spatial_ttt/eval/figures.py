"""The report's figures, each as one inline SVG string: bars, length curve, confusions, scatter."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from spatial_ttt.errors import ConfigError
from spatial_ttt.eval import parsing
from spatial_ttt.eval.metrics import bootstrap_interval
from spatial_ttt.eval.predictions import Prediction
from spatial_ttt.eval.published import PublishedTable
from spatial_ttt.eval.question_types import DIRECTION_SUBTYPES
from spatial_ttt.eval.scoring import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS, PALE, INK, FAINT = "#2563a8", "#9dbfe3", "#222222", "#b8b8b8"
MAX_LENGTHS = 8
"""Stream lengths shown one by one; more are put into as many bins of equal size."""


MAX_CURVES = 4
"""Types with a curve of their own; more share one."""


def type_bars(summary: Summary, published: PublishedTable | None) -> str:
    """One bar per type with its interval; published rows as marks."""
    names = list(summary.types)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        lines = [summary.types[name] for name in names]
        scores = [line.score for line in lines]
        low = [max(0.0, line.score - line.interval.low) for line in lines]
        high = [max(0.0, line.interval.high - line.score) for line in lines]
        axes.bar(range(len(names)), scores, color=PALE, edgecolor=OURS, width=0.6)
        axes.errorbar(
            range(len(names)), scores, yerr=[low, high], fmt="none", ecolor=INK, capsize=3
        )
        _mark_published(axes, names, published)
        labels = [f"{_short(name)}\nn={summary.types[name].n}" for name in names]
        axes.set_xticks(range(len(names)), labels, fontsize=8)
        axes.set_ylabel("score (points)")
        axes.set_ylim(0, 100)

    return svg(draw, (max(5.0, 1.15 * len(names)), 3.4))


def length_curve(predictions: Sequence[Prediction]) -> str | None:
    """Score against stream length; None when fewer than two lengths are there."""
    timed = [one for one in predictions if one.stream_minutes is not None]
    groups = _length_groups(timed)
    if len(groups) < 2:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        kinds = sorted({one.question_type for one in timed})
        if len(kinds) > MAX_CURVES:
            _curve(axes, groups, f"all {len(kinds)} types", 0)
        else:
            for index, kind in enumerate(kinds):
                points = [(x, [p for p in group if p.question_type == kind]) for x, group in groups]
                _curve(axes, [(x, group) for x, group in points if group], kind, index)
        axes.set_xscale("log")
        lengths = [length for length, _ in groups]
        axes.set_xticks(lengths, [f"{length:.3g}" for length in lengths])
        axes.minorticks_off()
        axes.set_xlabel("stream length (minutes)")
        axes.set_ylabel("score (points)")
        axes.set_ylim(0, 100)
        axes.legend(fontsize=7, frameon=False)

    return svg(draw, (5.6, 3.4))


def direction_confusion(predictions: Sequence[Prediction]) -> str | None:
    """True direction against the one replied, per sub-type; None without direction questions."""
    groups = {
        name: [one for one in predictions if one.question_type == name]
        for name in DIRECTION_SUBTYPES
    }
    groups = {name: group for name, group in groups.items() if group}
    if not groups:
        return None

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(groups), squeeze=False)[0]
        for axes, (name, group) in zip(panels, groups.items(), strict=True):
            _confusion(axes, *confusion_matrix(group))
            axes.set_title(name.rsplit("_", 1)[1], fontsize=9)
        panels[0].set_ylabel("true")

    return svg(draw, (3.3 * len(groups), 3.2))


def confusion_matrix(group: Sequence[Prediction]) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Option texts and counts [true, replied]; the last column counts unreadable replies."""
    texts = sorted({parsing.option_text(option) for one in group for option in one.options})
    counts = np.zeros((len(texts), len(texts) + 1), dtype=int)
    for one in group:
        by_letter = {option[0].lower(): parsing.option_text(option) for option in one.options}
        replied = by_letter.get(parsing.official_text(one.reply).lower())
        column = len(texts) if replied is None else texts.index(replied)
        counts[texts.index(by_letter[one.answer.lower()]), column] += 1
    return texts, counts


def number_scatter(predictions: Sequence[Prediction]) -> str | None:
    """Replied against true numbers per type, with the band of half the truth either way."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for one in predictions:
        if one.kind == "number":
            value = parsing.official_number(one.reply)
            groups.setdefault(one.question_type, [])
            if value is not None and np.isfinite(value):
                groups[one.question_type].append((float(one.answer), value))
    if not any(groups.values()):
        return None

    def draw(figure: Figure) -> None:
        columns = min(4, len(groups))
        rows = -(-len(groups) // columns)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (name, pairs) in zip(panels, sorted(groups.items()), strict=False):
            _scatter(axes, pairs)
            axes.set_title(_short(name).replace("\n", " "), fontsize=9)
        for axes in panels[len(groups) :]:
            axes.set_visible(False)

    rows = -(-len(groups) // 4)
    return svg(draw, (2.5 * min(4, len(groups)) + 0.6, 2.5 * rows + 0.4))


def svg(draw: Callable[[Figure], None], size: tuple[float, float]) -> str:
    """Draw on a fresh figure of `size` inches and return it as SVG text for a page."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError('figures need matplotlib; `pip install "spatial-ttt[eval]"`') from None
    with matplotlib.rc_context(  # a fixed salt: same data, same bytes
        {"svg.hashsalt": "spatial-ttt", "svg.fonttype": "none", "font.size": 9}
    ):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        for axes in figure.axes:
            axes.spines[["top", "right"]].set_visible(False)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def _mark_published(axes: Axes, names: list[str], published: PublishedTable | None) -> None:
    if published is None:
        return
    markers = iter("D^sv<>")
    for row in published.rows:
        marks = [(i, published.value(row, name)) for i, name in enumerate(names)]
        known = [(i, value) for i, value in marks if value is not None]
        if known:
            x, y = zip(*known, strict=True)
            axes.scatter(
                x, y, marker=next(markers), s=22, color=INK, alpha=0.65, label=row, zorder=3
            )
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, frameon=False, ncols=2, loc="upper right")


def _length_groups(timed: Sequence[Prediction]) -> list[tuple[float, list[Prediction]]]:
    lengths = np.array([one.stream_minutes for one in timed], dtype=np.float64)
    distinct = np.unique(lengths)
    if len(distinct) <= MAX_LENGTHS:
        return [
            (float(x), [one for one, y in zip(timed, lengths, strict=True) if y == x])
            for x in distinct
        ]
    order = np.argsort(lengths, kind="stable")
    bins = np.array_split(order, MAX_LENGTHS)
    return [(float(np.median(lengths[part])), [timed[i] for i in part]) for part in bins]


def _curve(
    axes: Axes, points: Sequence[tuple[float, list[Prediction]]], label: str, index: int
) -> None:
    x = [length for length, _ in points]
    scores = [np.array([one.score().official for one in group]) for _, group in points]
    y = [100 * float(values.mean()) for values in scores]
    spans = [
        bootstrap_interval(values, [one.cluster for one in group])
        for values, (_, group) in zip(scores, points, strict=True)
    ]
    below = [max(0.0, m - 100 * span.low) for m, span in zip(y, spans, strict=True)]
    above = [max(0.0, 100 * span.high - m) for m, span in zip(y, spans, strict=True)]
    axes.errorbar(
        x, y, yerr=[below, above], label=label, marker="o", capsize=3, color=f"C{index % 10}"
    )


def _confusion(axes: Axes, texts: list[str], counts: np.ndarray[Any, Any]) -> None:
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        dark = share[row, column] > 0.55
        axes.text(column, row, str(count), ha="center", va="center", fontsize=8,
                  color="white" if dark else INK)  # fmt: skip
    axes.set_xticks(range(len(texts) + 1), [*texts, "unread"], rotation=30, ha="right", fontsize=8)
    axes.set_yticks(range(len(texts)), texts, fontsize=8)
    axes.set_xlabel("replied")


def _scatter(axes: Axes, pairs: Sequence[tuple[float, float]]) -> None:
    if not pairs:
        axes.text(0.5, 0.5, "no readable number", ha="center", transform=axes.transAxes)
        return
    truth, replied = np.array(pairs).T
    shown = replied > 0  # the axes are logarithmic
    axes.scatter(truth[shown], replied[shown], s=8, color=OURS, alpha=0.45, linewidths=0)
    top = float(max(truth.max(), 1e-3)) * 2
    bottom = float(max(truth[truth > 0].min(initial=top), 1e-3)) / 2
    line = np.array([bottom, top])
    axes.plot(line, line, color=INK, linewidth=0.8)
    axes.fill_between(line, 0.5 * line, 1.5 * line, color=FAINT, alpha=0.3, linewidth=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(bottom, top)
    axes.set_ylim(bottom / 2, top * 2)
    axes.xaxis.set_minor_formatter("")
    axes.yaxis.set_minor_formatter("")
    axes.set_xlabel("true")
    axes.set_ylabel("replied")


def _short(name: str) -> str:
    return name.removeprefix("object_").removeprefix("obj_").removesuffix("_estimation").replace(
        "_", "\n"
    )  # fmt: skip
