"""What is known of a session beside its memory: written to disk with it, as JSON."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from spatial_ttt.errors import CheckpointError
from spatial_ttt.serve.timeline import Timeline, timeline_from_json, timeline_from_notes

RECORD_FORMAT = 2
_READ = {1: timeline_from_notes, 2: timeline_from_json}
"""Formats that can be read, and how each holds the timeline."""
Kind = Literal["session", "snapshot"]
Clock = Literal["strict", "mend"]


@dataclass(frozen=True, slots=True)
class WalkSpec:
    """A walk through a procedural home: the same values give the same frames."""

    seed: int
    fps: float = 2.0
    seconds: float = 60.0
    width: int = 480
    height: int = 360


@dataclass(slots=True)
class SessionRecord:
    """One session, or one snapshot that was asked for (a point to begin other sessions from)."""

    session_id: str
    owner: str
    name: str
    max_frames: int
    """Frames it is promised room for."""
    kind: Kind = "session"
    clock: Clock = "strict"
    """Times that go backwards: refuse the frame, or mend them (see `clock.MendingClock`)."""
    next_id: int = 0
    """The next frame id; all before were watched, refused or skipped."""
    refused: int = 0
    """Frames that could not be watched and were left out."""
    skipped: int = 0
    """Frames that the client declared lost."""
    origin: str | None = None
    """The session or snapshot that this one began as a copy of."""
    created_at: float = field(default_factory=time.time)
    """Unix time, for people only."""
    saved_at: float | None = None
    saved_id: int = -1
    """The last frame id that is safe on disk; -1: none."""
    num_frames: int = 0
    seconds_seen: float = 0.0
    clock_state: tuple[float, float, float] | None = None
    """(offset, last time, last step) of a mending clock, s."""
    file: str | None = None
    """The state's file beside this record."""
    walk: dict[str, Any] | None = None
    """The procedural walk it watched (`WalkSpec`), whose plan is known."""
    timeline: Timeline = field(default_factory=Timeline, compare=False)
    """What the memory did, slot by slot (the latest)."""

    def copy(self, **changes: Any) -> SessionRecord:
        """Another record that shares nothing that changes."""
        return replace(self, **({"timeline": self.timeline.copy()} | changes))

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; `record_from_json` reads it."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {"format": RECORD_FORMAT} | values | {"timeline": self.timeline.to_json()}


def record_from_json(values: dict[str, Any], where: str) -> SessionRecord:
    """A record from JSON; raises CheckpointError for another format or other fields."""
    version = values.get("format")
    if type(version) is not int or version not in _READ:
        readable = " and ".join(map(str, _READ))
        raise CheckpointError(
            f"{where} has format {version!r}, this version reads {readable}; "
            f"use the version of spatial-ttt that wrote it"
        )
    rest = {key: value for key, value in values.items() if key != "format"}
    known = {item.name for item in fields(SessionRecord)}
    if set(rest) != known:
        odd = sorted(set(rest) ^ known)
        raise CheckpointError(f"{where} lacks or adds the fields {', '.join(odd)}; it is damaged")
    if rest["clock_state"] is not None:
        rest["clock_state"] = tuple(rest["clock_state"])
    rest["timeline"] = _READ[version](rest["timeline"], where)
    return SessionRecord(**rest)
