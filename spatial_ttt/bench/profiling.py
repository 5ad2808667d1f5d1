"""Where the time of one clip goes: Python's functions, and torch's operations."""

from __future__ import annotations

import cProfile
import io
import pstats
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from spatial_ttt.bench.plan import BenchPlan
from spatial_ttt.bench.prefill import read_clip
from spatial_ttt.bench.rig import Rig, open_rig
from spatial_ttt.bench.subject import Subject

ROWS = 45


def profile_run(plan: BenchPlan, subject: Subject, frames: int, slots: int) -> str:
    """Profile a clip of `frames` frames, then `slots` live slots, in the first of our modes; 0 leaves one out."""
    mode = next((mode for mode in plan.modes if mode != "stock"), "exact")
    rig = open_rig(plan, subject, mode)
    parts = []
    with torch.no_grad():
        if frames:
            parts.append(f"{mode}, a clip of {frames} frames\n{profile_clip(rig, frames)}")
        if slots:
            title = f"{mode}, {slots} single slots after {plan.live_before}"
            parts.append(f"{title}\n{profile_slots(rig, plan.live_before, slots)}")
    return "\n".join(parts)


def profile_clip(rig: Rig, frames: int) -> str:
    """Tables of one clip of so many frames; it is read once more before, to warm up."""
    ingest = rig.open()
    read_clip(rig, ingest, frames)
    return _profiled(lambda: read_clip(rig, ingest, frames), rig)


def profile_slots(rig: Rig, before: int, slots: int) -> str:
    """Tables of single slots after `before` slots."""
    ingest = rig.open()
    rig.push(ingest, before)
    rig.push(ingest, min(5, slots), piece=1)  # to warm up
    return _profiled(lambda: rig.push(ingest, slots, piece=1), rig)


def _profiled(work: Callable[[], object], rig: Rig) -> str:
    on_gpu = rig.subject.device.type == "cuda"
    text = io.StringIO()
    python = cProfile.Profile()
    python.runcall(work)
    pstats.Stats(python, stream=text).sort_stats("tottime").print_stats(ROWS)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    with profile(activities=activities) as found:
        work()
    averages = found.key_averages()
    for key in ["self_cpu_time_total"] + (["self_cuda_time_total"] if on_gpu else []):
        text.write(averages.table(sort_by=key, row_limit=ROWS, max_name_column_width=70) + "\n")
    return text.getvalue()
