"""What a session says to those who use it: acknowledgements, answers, news."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any, Literal

from spatial_ttt.serve.timeline import MemoryNote

Status = Literal["watched", "duplicate", "refused", "skipped"]


@dataclass(frozen=True, slots=True)
class Ack:
    """What became of a frame, and which frames are safe."""

    frame_id: int
    status: Status
    seen: int
    """The last id handled; -1: none."""
    saved: int
    """The last id that would survive a crash; -1: none."""
    slots: int
    error: str | None = None
    note: MemoryNote | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        values: dict[str, Any] = {
            "id": self.frame_id,
            "status": self.status,
            "seen": self.seen,
            "saved": self.saved,
            "slots": self.slots,
        }
        if self.error is not None:
            values["error"] = self.error
        if self.note is not None:
            values["note"] = self.note.to_json()
        return values


Listener = Callable[[dict[str, Any]], None]
"""Called on the event loop with what happens to a session; must return at once."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer on its way, and the moment it is about."""

    pieces: AsyncGenerator[str, None]
    seen: int
    seconds_seen: float
