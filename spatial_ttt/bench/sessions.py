"""Several sessions on one device, watched as a server watches them: is each served as fast as it comes?"""

from __future__ import annotations

from spatial_ttt.bench.clock import allocated_bytes, forget_peak, latencies, peak_bytes, seconds_of
from spatial_ttt.bench.memory import StateBytes, state_bytes
from spatial_ttt.bench.plan import FRAMES_PER_SECOND, FRAMES_PER_SLOT
from spatial_ttt.bench.record import Line
from spatial_ttt.bench.rig import Rig
from spatial_ttt.model.kv_cache import KVCache
from spatial_ttt.model.state import DecoderState, own
from spatial_ttt.serve.memory_note import observe
from spatial_ttt.session import StreamingSession
from spatial_ttt.steady_stream import SharedStream
from spatial_ttt.video.frame import Frame, Pixels

_PROMISED = 1 << 50
"""Bytes: a server bounds every session, so its state is counted after every piece; here none is refused."""


class _Hosted:
    """One session, whose camera shows the same slot for ever."""

    def __init__(self, session: StreamingSession, slot: list[Pixels]) -> None:
        self.session = session
        self._slot = slot

    def watch(self) -> None:
        """Watch a slot frame by frame, as a server does."""
        seen = self.session.state.num_frames
        for number, pixels in enumerate(self._slot):
            observe(self.session, Frame(pixels, (seen + number) / FRAMES_PER_SECOND))

    def copy(self) -> _Hosted:
        """Another session that has seen as much, in memory of its own."""
        twin = self.session.fork()
        twin._state = twin.state._replace(decoder=_copied(twin.state.decoder))
        return _Hosted(twin, self._slot)

    @property
    def decoder(self) -> DecoderState:
        """What the session has left behind so far."""
        return self.session.state.decoder


def _copied(state: DecoderState) -> DecoderState:
    """The same state in memory of its own."""
    layers = (own(layer) for layer in state.layers)
    alone = (
        layer._replace(high_water=[layer.tail]) if isinstance(layer, KVCache) else layer
        for layer in layers
    )
    return state._replace(layers=tuple(alone))


def _open(rig: Rig, engine: SharedStream | None) -> list[_Hosted]:
    """The sessions, each with a past of `session_before` slots and as many as an engine wants to be warm.

    One is watched and copied for every other: all are as long, none shares memory.
    """
    session = StreamingSession(
        rig.model,
        rig.subject.processor,
        max_bytes=_PROMISED,
        anchors=rig.anchors,
        steady=engine or False,
    )
    first = _Hosted(session, list(rig.pool[:FRAMES_PER_SLOT].cpu().numpy()))
    for _ in range(rig.plan.session_before + rig.warm_slots):
        first.watch()
        rig.tick(FRAMES_PER_SLOT)
    return [first, *(first.copy() for _ in range(rig.plan.sessions - 1))]


def measure_sessions(rig: Rig) -> Line:
    """Rounds of one slot for every session; at 2 frames per second a round may take a second.

    What is measured is what a server's model thread does with two frames: the sessions are `StreamingSession`s
    under a budget, on the steady engine all on one `SharedStream` (a server on a GPU), else each by itself (one on
    a CPU). A slot's time holds, for frames of the model's size in the host's memory: their copy to the device, their
    patches, made there, the vision tower, the decoder, the state's way in and out of the engine, and the note of what
    the memory did. Receiving and decoding pictures, questions and saving are not in it.
    A slot's latency counts from the moment when all of a round's slots are there: the last one waits
    for all others.
    """
    plan, device = rig.plan, rig.subject.device
    start = allocated_bytes(device)
    engine = SharedStream(rig.model) if plan.engine == "steady" else None
    sessions = _open(rig, engine)
    forget_peak(device)
    steps, waits, rounds = [], [], []
    for _ in range(plan.session_slots):
        waited = 0.0
        for hosted in sessions:
            took = seconds_of(hosted.watch, device)
            rig.tick(FRAMES_PER_SLOT)
            waited += took
            steps.append(took)
            waits.append(waited)
        rounds.append(waited)
    peak = peak_bytes(device)
    states = [state_bytes(hosted.decoder) for hosted in sessions]
    now = allocated_bytes(device)
    mean = sum(rounds) / len(rounds)
    whole = StateBytes(sum(s.ttt for s in states), sum(s.anchors for s in states))
    return (
        rig.line(sessions[-1].session.state.num_frames)
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
            "engine_bytes": None if engine is None else engine.num_bytes,
            "allocated_bytes_per_session": (
                None if now is None or start is None else (now - start) // plan.sessions
            ),
            "all_seconds": rounds,
        }
    )
