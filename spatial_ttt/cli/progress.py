"""A progress bar on stderr around the data builder."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from spatial_ttt.scenes.build import BuildReport, build
from spatial_ttt.scenes.build import Progress as Done
from spatial_ttt.scenes.build_plan import BuildConfig


def show_build(
    config: BuildConfig, out: Path, *, workers: int, part: tuple[int, int] = (0, 1)
) -> BuildReport:
    """`build` with a bar of scenes done, frames per second and the time left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        line = bar.add_task("scenes", total=None, rate="")

        def on_progress(done: Done) -> None:
            elapsed = bar.tasks[line].elapsed or 0.0
            rate = f"{done.frames / elapsed:.0f} frames/s" if done.frames and elapsed else ""
            bar.update(line, completed=done.scenes_done, total=done.scenes_total, rate=rate)

        return build(config, out, workers=workers, part=part, on_progress=on_progress)
