"""What a run says: metrics.jsonl, TensorBoard, a progress bar; on the first process only."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
_SHOWN = ("loss", "token_accuracy", "tokens_per_second", "mfu", "memory_gib", "window")


class RunLog:
    """Use in `with`; every method does nothing on the other processes."""

    def __init__(self, folder: Path, *, is_first: bool, first_step: int, num_steps: int) -> None:
        self.folder = folder
        self._is_first = is_first
        self._first_step = first_step
        self._num_steps = num_steps
        self._file: TextIO | None = None
        self._board: Any = None
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> RunLog:
        if not self._is_first:
            return self
        from torch.utils.tensorboard.writer import SummaryWriter

        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / METRICS
        kept = [r for r in read_metrics(path) if r["step"] <= self._first_step]
        self._file = path.open("w", encoding="utf-8")
        self._file.writelines(json.dumps(record) + "\n" for record in kept)
        self._file.flush()
        self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self._first_step)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[now]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), transient=False)
        self._task = self._bar.add_task(
            "steps", total=self._num_steps, completed=self._first_step, now=""
        )
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._board is not None:
            self._board.close()
        if self._file is not None:
            self._file.close()

    def step(self, record: dict[str, Any], *, written: bool) -> None:
        """One step done; `written` also adds it to the files."""
        if self._bar is not None:
            self._bar.update(self._task, completed=record["step"], now=_short(record))
        if written:
            self.write(record)

    def write(self, record: dict[str, Any]) -> None:
        """Add a record to metrics.jsonl and TensorBoard."""
        if self._file is None:
            return
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        for name, value in record.items():
            if isinstance(value, int | float) and name != "step":
                self._board.add_scalar(name, value, record["step"])
        log.info("%s", json.dumps(record))

    def text(self, name: str, content: str) -> None:
        """A text for TensorBoard, such as the configuration."""
        if self._board is not None:
            self._board.add_text(name, content)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Records of a metrics.jsonl; a line that a kill cut short is left out."""
    records = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            log.warning("%s: a line cut short is left out", path)
    return records


def _short(record: dict[str, Any]) -> str:
    parts = []
    for name in _SHOWN:
        value = record.get(name)
        if value is None:
            continue
        short = {"tokens_per_second": "tokens/s", "token_accuracy": "right", "memory_gib": "GiB"}
        shown = f"{value:.3g}" if isinstance(value, float) and value < 1000 else f"{value:.0f}"
        parts.append(f"{short.get(name, name)} {shown}")
    return " ".join(parts)
