"""The lines of a run as pictures: time and memory against frames, and how long single slots take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from spatial_ttt.bench.record import Line
from spatial_ttt.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"stock": "#888888", "exact": "#1f6fb4", "bounded": "#d9822b"}


def check_plotting() -> None:
    """Raise ConfigError where nothing can draw."""
    if find_spec("matplotlib") is None:
        raise ConfigError(
            "--plot needs matplotlib; install it with: pip install 'spatial-ttt[eval]', or leave --plot out"
        )


def draw(lines: Sequence[Line], folder: Path) -> list[Path]:
    """Write the pictures the lines suffice for, as PNG; returns their paths."""
    written = []
    prefill = [r for r in lines if r["what"] == "prefill" and r["seconds_to_first_token"]]
    if prefill:
        written.append(
            _against_frames(
                prefill, "seconds_to_first_token", "time to first token, s", folder / "prefill.png"
            )
        )
    if any(line["peak_gib"] for line in prefill):
        written.append(
            _against_frames(prefill, "peak_gib", "peak memory, GiB", folder / "memory.png")
        )
    live = [line for line in lines if line["what"] == "live" and "all_seconds" in line]
    if live:
        written.append(_histogram(live, folder / "live.png"))
    return written


def _against_frames(lines: Sequence[Line], field: str, label: str, path: Path) -> Path:
    def paint(axes: Axes) -> None:
        for mode in dict.fromkeys(line["mode"] for line in lines):
            rows = sorted(
                (line["frames"], line[field])
                for line in lines
                if line["mode"] == mode and line[field] is not None
            )
            axes.plot(*zip(*rows, strict=True), "o-", label=mode, color=COLOURS[mode])
        frames = sorted({line["frames"] for line in lines})
        axes.set(xscale="log", yscale="log", xlabel="frames", ylabel=label)
        axes.set_xticks(frames, [str(f) for f in frames])
        axes.minorticks_off()

    return _picture(paint, lines[0], path)


def _histogram(lines: Sequence[Line], path: Path) -> Path:
    def paint(axes: Axes) -> None:
        for line in lines:
            asked = line.get("asks_every")
            label = line["mode"] + (f", a question every {asked} slots" if asked else "")
            milliseconds = [1000 * s for s in line["all_seconds"]]
            dashes = "--" if asked else "-"
            colour = COLOURS[line["mode"]]
            axes.hist(
                milliseconds, 60, histtype="step", label=label, color=colour, linestyle=dashes
            )
        axes.set(xlabel="one slot, ms", ylabel="slots", yscale="log")

    return _picture(paint, lines[0], path)


def _picture(paint: Callable[[Axes], None], line: Line, path: Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    paint(axes)
    axes.set_title(f"{line['model']}, {line['device']}, commit {line['commit']}", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
    return path
