"""One run: every measure in every mode, one model in memory at a time, each line told as it is known."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from spatial_ttt.bench.clock import forget_peak, free_memory, peak_bytes
from spatial_ttt.bench.plan import FRAMES_PER_SLOT, BenchPlan
from spatial_ttt.bench.prefill import measure_prefill, measure_stock
from spatial_ttt.bench.record import Line
from spatial_ttt.bench.rig import Rig, Tick, anchor_policy, open_rig
from spatial_ttt.bench.sessions import measure_sessions
from spatial_ttt.bench.stock import Stock
from spatial_ttt.bench.stream import measure_bounded, measure_live, measure_questions
from spatial_ttt.bench.subject import Subject

log = logging.getLogger(__name__)

Measure = Callable[[], Line]


@dataclass(frozen=True)
class Told:
    """Who hears of the progress: names of measures, then frames watched."""

    begin: Callable[[str], None] = lambda name: None
    tick: Tick = lambda frames: None


def run(plan: BenchPlan, subject: Subject, told: Told | None = None) -> Iterator[Line]:
    """Yield one line per measure; a measure that runs out of memory says so and the run goes on."""
    if "bounded" in plan.modes:
        anchor_policy(plan, subject)
    told = told or Told()
    with torch.no_grad():
        if ("stock", "prefill") in plan.jobs:
            yield from _run_stock(plan, subject, told)
            _clear(subject)
        if any(mode != "stock" for mode, _ in plan.jobs):
            yield from _run_ours(plan, subject, told)


def _run_stock(plan: BenchPlan, subject: Subject, told: Told) -> Iterator[Line]:
    stock, pool = Stock(subject), subject.frames(plan.slots_per_piece)
    for frames in plan.frames:
        told.begin(f"stock, {frames} frames")
        yield _measured(
            subject,
            {"what": "prefill", "mode": "stock", "frames": frames},
            lambda frames=frames: measure_stock(stock, pool, plan, frames, told.tick),  # type: ignore[misc]
        )


def _run_ours(plan: BenchPlan, subject: Subject, told: Told) -> Iterator[Line]:
    whole = replace(open_rig(plan, subject, "exact"), tick=told.tick)
    for mode, measure in plan.jobs:
        if mode == "stock":
            continue
        rig = whole.in_mode(mode)
        for frames, work in _works(rig, measure):
            told.begin(f"{measure}, {mode}, {frames} frames")
            known = {"what": measure, "mode": mode, "frames": frames}
            yield _measured(subject, known, work)
            del work  # and the stream it holds
            _clear(subject)


def _works(rig: Rig, measure: str) -> Iterator[tuple[int, Measure]]:
    """(frames, work) of every line of one measure."""
    plan = rig.plan
    if measure == "prefill":
        for frames in plan.frames:
            yield frames, lambda frames=frames: measure_prefill(rig, frames)  # type: ignore[misc]
    elif measure == "question":
        ingest, seen = rig.open(), 0
        for frames in plan.frames:

            def ask(frames: int = frames, more: int = frames - seen) -> Line:
                rig.push(ingest, more // FRAMES_PER_SLOT)
                return measure_questions(rig, ingest, frames)

            yield frames, ask
            seen = frames
    elif measure == "live":
        ingest = rig.open()
        for asks in (False, True):

            def live(asks: bool = asks) -> Line:
                if not asks:
                    rig.push(ingest, plan.live_before)
                return measure_live(rig, ingest, asks=asks)

            yield FRAMES_PER_SLOT * plan.live_before, live
    elif measure == "bounded":
        yield plan.bounded_frames, lambda: measure_bounded(rig)
    else:
        frames = FRAMES_PER_SLOT * plan.session_before
        yield frames, lambda: measure_sessions(rig)


def _measured(subject: Subject, known: Line, work: Measure) -> Line:
    """One measure's line; out of memory is a result too."""
    forget_peak(subject.device)
    head = known | subject.facts()
    try:
        return head | work()
    except torch.OutOfMemoryError as error:
        log.warning("%s: out of memory", known)
        reason = str(error).partition("\n")[0]
    peak = peak_bytes(subject.device)
    return head | {
        "seconds_to_first_token": None,
        "peak_gib": None if peak is None else peak / 2**30,
        "failed": f"out of memory: {reason}",
    }


def _clear(subject: Subject) -> None:
    gc.collect()
    free_memory(subject.device)
