"""A session's frames, memory and answers in the Rerun viewer (extra `rerun`).

with RerunLog("walk.rrd") as log:       # or RerunLog() for a viewer that is open
    log.frame(pixels, seconds)
    log.slot(note)                      # what the server says of every slot
    log.answer(question, answer, seconds)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from spatial_ttt.video.frame import Pixels

TIMELINE = "stream"
_FIGURES = ("update", "surprise", "gate")


class RerunLog:
    """One recording; `target` is a file to write, or None for a viewer on this machine."""

    def __init__(self, target: str | Path | None = None, name: str = "spatial-ttt") -> None:
        import rerun

        self._rerun: Any = rerun
        self._recording: Any = rerun.RecordingStream(name)
        if target is None:
            self._recording.connect_grpc()
        else:
            self._recording.save(str(target))

    def _at(self, seconds: float) -> None:
        self._recording.set_time(TIMELINE, duration=seconds)

    def frame(self, pixels: Pixels, seconds: float) -> None:
        """A frame [H, W, 3] as it was sent."""
        self._at(seconds)
        self._recording.log("camera", self._rerun.Image(pixels).compress(jpeg_quality=85))

    def slot(self, note: Mapping[str, Any]) -> None:
        """A slot's figures, one series per TTT layer (`MemoryNote.to_json`)."""
        self._at(float(note["time"]))
        for figure in _FIGURES:
            for layer, value in enumerate(note[figure], start=1):
                self._recording.log(f"memory/{figure}/layer_{layer}", self._rerun.Scalars(value))

    def answer(self, question: str, answer: str, seconds: float) -> None:
        """What was asked at a moment, and said."""
        self._at(seconds)
        self._recording.log("talk", self._rerun.TextLog(f"{question}\n{answer}"))

    def close(self) -> None:
        """Write what is left."""
        self._recording.flush()
        self._recording.disconnect()

    def __enter__(self) -> RerunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
