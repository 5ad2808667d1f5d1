"""A progress bar on stderr around the data builder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
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
from spatial_ttt.scenes.long import build_long
from spatial_ttt.scenes.long_plan import LongConfig

OnProgress = Callable[[Done], None]


def show_build(
    config: BuildConfig, out: Path, *, workers: int, part: tuple[int, int] = (0, 1)
) -> BuildReport:
    """`build` with a bar of scenes done, frames per second and the time left."""
    with _bar("scenes") as on_progress:
        return build(config, out, workers=workers, part=part, on_progress=on_progress)


def show_long(config: LongConfig, out: Path, *, workers: int) -> Path:
    """`build_long` with a bar of frames done."""
    with _bar("frames") as on_progress:
        return build_long(config, out, workers=workers, on_progress=on_progress)


@contextlib.contextmanager
def _bar(unit: str) -> Iterator[OnProgress]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        line = bar.add_task(unit, total=None, rate="")

        def on_progress(done: Done) -> None:
            elapsed = bar.tasks[line].elapsed or 0.0
            rate = f"{done.frames / elapsed:.0f} frames/s" if done.frames and elapsed else ""
            bar.update(line, completed=done.done, total=done.total, rate=rate)

        yield on_progress
