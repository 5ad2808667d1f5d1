"""What the memory did with a slot, and with the latest ones in one block of memory whose size does not change.

It is allocated with the first slot and written around in circles from then on, so that a session that
has watched for hours holds exactly what it held after its first slot.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from spatial_ttt.errors import CheckpointError

TIMELINE_SLOTS = 600
"""Slots whose notes are kept."""
_MOST_LAYERS = 1 << 12


@dataclass(frozen=True, slots=True)
class MemoryNote:
    """One slot."""

    slot: int
    time: float  # s, of the slot's last frame
    update: tuple[float, ...]
    surprise: tuple[float, ...]
    gate: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, rounded for the wire."""
        values = asdict(self)
        for name in ("update", "surprise", "gate"):
            values[name] = [float(f"{value:.4g}") for value in values[name]]
        return values


class Timeline:
    """The notes of the latest `TIMELINE_SLOTS` slots, oldest first."""

    def __init__(self) -> None:
        self._rows = np.zeros(0, _row(0))
        self._num_seen = 0

    def __len__(self) -> int:
        return min(self._num_seen, TIMELINE_SLOTS)

    @property
    def num_bytes(self) -> int:
        """Bytes it holds."""
        return self._rows.nbytes

    def append(self, note: MemoryNote) -> None:
        """Keep a note, in place of the oldest where it is full; all notes have the same TTT layers."""
        if len(self._rows) < TIMELINE_SLOTS:  # the first note, or the first after it was copied
            grown = np.zeros(TIMELINE_SLOTS, _row(len(note.update)))
            grown[: len(self)] = self._rows if len(self) else 0
            self._rows = grown
        figures = np.array((note.update, note.surprise, note.gate), np.float32)
        self._rows[self._num_seen % TIMELINE_SLOTS] = (note.slot, note.time, figures)
        self._num_seen += 1

    def copy(self) -> Timeline:
        """Another one that shares nothing, as small as its notes allow."""
        twin = Timeline()
        twin._rows, twin._num_seen = self._in_order(), len(self)
        return twin

    def notes(self) -> list[dict[str, Any]]:
        """All notes as `MemoryNote.to_json` gives them."""
        return [
            MemoryNote(int(row["slot"]), float(row["time"]), *map(tuple, row["figures"])).to_json()
            for row in self._in_order()
        ]

    def to_json(self) -> dict[str, Any]:
        """For a file: few and short enough to be written every few seconds for every session."""
        rows = self._in_order()
        layers = rows.dtype["figures"].shape[1]
        return {"layers": layers, "notes": base64.b64encode(rows.tobytes()).decode("ascii")}

    def _in_order(self) -> np.ndarray:
        """A copy of the rows [slots], oldest first."""
        if self._num_seen <= TIMELINE_SLOTS:
            return self._rows[: self._num_seen].copy()
        return np.roll(self._rows, -(self._num_seen % TIMELINE_SLOTS))


def timeline_from_json(values: Any, where: str) -> Timeline:
    """What `Timeline.to_json` wrote; raises CheckpointError for anything else."""
    damaged = CheckpointError(f"{where} has a timeline that cannot be read; it is damaged")
    if not isinstance(values, dict) or values.keys() != {"layers", "notes"}:
        raise damaged
    layers, notes = values["layers"], values["notes"]
    if type(layers) is not int or not 0 <= layers <= _MOST_LAYERS or not isinstance(notes, str):
        raise damaged
    try:
        rows = np.frombuffer(base64.b64decode(notes, validate=True), _row(layers)).copy()
    except (binascii.Error, ValueError) as error:
        raise damaged from error
    if len(rows) > TIMELINE_SLOTS:
        raise damaged
    timeline = Timeline()
    timeline._rows, timeline._num_seen = rows, len(rows)
    return timeline


def timeline_from_notes(values: Any, where: str) -> Timeline:
    """Notes as records of format 1 held them; raises CheckpointError for anything else."""
    timeline = Timeline()
    try:
        for note in values[-TIMELINE_SLOTS:]:
            timeline.append(MemoryNote(**note))
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{where} has a timeline that cannot be read; it is damaged"
        ) from error
    return timeline


def _row(layers: int) -> np.dtype[Any]:
    """A note: slot, time in s, and (update, surprise, gate) of each TTT layer, [3, layers]."""
    return np.dtype([("slot", "<i8"), ("time", "<f8"), ("figures", "<f4", (3, layers))])
