"""Several streams on one device, in turn: is each served as fast as it comes?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from torch import Tensor

from spatial_ttt.bench.clock import allocated_bytes, forget_peak, latencies, peak_bytes, seconds_of
from spatial_ttt.bench.ingest import SteadyIngest
from spatial_ttt.bench.memory import StateBytes, state_bytes
from spatial_ttt.bench.plan import FRAMES_PER_SECOND, FRAMES_PER_SLOT
from spatial_ttt.bench.record import Line
from spatial_ttt.bench.rig import Rig
from spatial_ttt.model.kv_cache import KVCache
from spatial_ttt.model.state import DecoderState, own


class _Stream(Protocol):
    """One of the sessions."""

    def watch(self, pieces: Iterable[Tensor]) -> None:
        """Watch whole slots."""

    @property
    def view(self) -> DecoderState:
        """What the session has left behind so far."""


class _Turns:
    """Streams that take turns on one steady engine; whoever is not on it has its state apart."""

    def __init__(self, ingest: SteadyIngest) -> None:
        self.ingest = ingest
        self.apart: dict[int, DecoderState] = {}
        self.now: int | None = None

    def turn_to(self, number: int) -> None:
        """Let this stream have the engine."""
        if self.now != number:
            past = self.ingest.swap(self.apart.pop(number))
            if self.now is not None:
                self.apart[self.now] = past
            self.now = number


class _Turn:
    """One stream of those that take turns."""

    def __init__(self, turns: _Turns, number: int) -> None:
        self._turns, self._number = turns, number

    def watch(self, pieces: Iterable[Tensor]) -> None:
        self._turns.turn_to(self._number)
        self._turns.ingest.watch(pieces)

    @property
    def view(self) -> DecoderState:
        turns = self._turns
        return turns.ingest.view if turns.now == self._number else turns.apart[self._number]


def _streams(rig: Rig) -> list[_Stream]:
    """The sessions, each with a past of `session_before` slots and more.

    On a steady engine one stream is watched and copied for every session: all are as long, none shares memory.
    """
    plan = rig.plan
    if plan.engine != "steady":
        sessions = [rig.open() for _ in range(plan.sessions)]
        for session in sessions:
            rig.push(session, plan.session_before)
        rig.warm_singly(sessions[0])
        return list(sessions)
    ingest: Any = rig.open()
    rig.push(ingest, plan.session_before)
    rig.warm_singly(ingest)
    turns = _Turns(ingest)
    turns.apart = {number: _copied(ingest.view) for number in range(plan.sessions)}
    return [_Turn(turns, number) for number in range(plan.sessions)]


def _copied(state: DecoderState) -> DecoderState:
    """The same state in memory of its own."""
    layers = (own(layer) for layer in state.layers)
    alone = (
        layer._replace(high_water=[layer.tail]) if isinstance(layer, KVCache) else layer
        for layer in layers
    )
    return state._replace(layers=tuple(alone))


def measure_sessions(rig: Rig) -> Line:
    """Rounds of one slot for every session; at 2 frames per second a round may take a second.

    A slot's latency counts from the moment when all of a round's slots are there: the last one waits
    for all others.
    """
    plan, device = rig.plan, rig.subject.device
    start = allocated_bytes(device)
    sessions = _streams(rig)
    forget_peak(device)
    steps, waits, rounds = [], [], []
    for _ in range(plan.session_slots):
        waited = 0.0
        for session in sessions:
            took = seconds_of(lambda s=session: s.watch([rig.pool[:FRAMES_PER_SLOT]]), device)  # type: ignore[misc]
            rig.tick(FRAMES_PER_SLOT)
            waited += took
            steps.append(took)
            waits.append(waited)
        rounds.append(waited)
    peak = peak_bytes(device)
    seen = sessions[-1].view.num_tokens // rig.subject.slot_tokens
    states = [state_bytes(session.view) for session in sessions]
    now = allocated_bytes(device)
    mean = sum(rounds) / len(rounds)
    whole = StateBytes(sum(s.ttt for s in states), sum(s.anchors for s in states))
    return (
        rig.line(FRAMES_PER_SLOT * seen)
        | rig.memory(peak, whole)
        | {
            "slots_per_piece": 1,
            "sessions": plan.sessions,
            "frames_per_second_each": FRAMES_PER_SECOND,
            "real_time_factor": FRAMES_PER_SLOT / FRAMES_PER_SECOND / mean,
            "frames_per_second": FRAMES_PER_SLOT * plan.sessions / mean,
            "p99_wait_ms": latencies(waits)["p99_ms"],
            **latencies(steps),
            "bytes_per_session": whole.total // plan.sessions,
            "allocated_bytes_per_session": (
                None if now is None or start is None else (now - start) // plan.sessions
            ),
            "all_seconds": rounds,
        }
    )
