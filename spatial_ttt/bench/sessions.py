"""Several streams on one device, in turn: is each served as fast as it comes?"""

from __future__ import annotations

from spatial_ttt.bench.clock import allocated_bytes, forget_peak, latencies, peak_bytes, seconds_of
from spatial_ttt.bench.memory import StateBytes, state_bytes
from spatial_ttt.bench.plan import FRAMES_PER_SECOND, FRAMES_PER_SLOT
from spatial_ttt.bench.record import Line
from spatial_ttt.bench.rig import Rig


def measure_sessions(rig: Rig) -> Line:
    """Rounds of one slot for every session; at 2 frames per second a round may take a second.

    A slot's latency counts from the moment when all of a round's slots are there: the last one waits
    for all others.
    """
    plan, device = rig.plan, rig.subject.device
    start = allocated_bytes(device)
    sessions = [rig.open() for _ in range(plan.sessions)]
    for session in sessions:
        rig.push(session, plan.session_before)
    # A steady engine prepares its steps for each stream; plain kernels are prepared once for all.
    for session in sessions if plan.engine == "steady" else sessions[:1]:
        rig.warm_singly(session)
    forget_peak(device)
    steps, waits, rounds = [], [], []
    for _ in range(plan.session_slots):
        waited = 0.0
        for session in sessions:
            took = seconds_of(lambda s=session: s.push(rig.pool[:FRAMES_PER_SLOT]), device)  # type: ignore[misc]
            rig.tick(FRAMES_PER_SLOT)
            waited += took
            steps.append(took)
            waits.append(waited)
        rounds.append(waited)
    peak = peak_bytes(device)
    seen = sessions[-1].state.num_tokens // rig.subject.slot_tokens
    states = [state_bytes(session.state) for session in sessions]
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
