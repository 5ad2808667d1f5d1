"""Where the time of one clip goes: Python's functions, and torch's operations."""

from __future__ import annotations

import cProfile
import io
import pstats
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.profiler import ProfilerActivity, profile

from spatial_ttt.bench.asking import Asking, first_token, first_tokens
from spatial_ttt.bench.clock import (
    GIB,
    allocated_bytes,
    forget_peak,
    peak_bytes,
    seconds_of,
    synchronize,
)
from spatial_ttt.bench.ingest import Ingest
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


def profile_question(plan: BenchPlan, subject: Subject, frames: int) -> str:
    """Where a question after `frames` frames spends its time and memory, in the first of our modes."""
    mode = next((mode for mode in plan.modes if mode != "stock"), "exact")
    rig = open_rig(plan, subject, mode)
    asking = Asking(plan.question_tokens, plan.answer_tokens)
    with torch.no_grad():
        ingest = rig.open()
        rig.push(ingest, frames // 2)
        text = [
            f"{mode}, {plan.engine}, a question of {asking.question} tokens after {frames} frames"
        ]
        for moment in ("first ever", "a slot later", "another slot later"):
            text += [f"{moment}: {_asked(rig, ingest, asking)}" for _ in range(2)]
            rig.push(ingest, 1)
        longer = asking._replace(question=asking.question + 13)
        text += [f"13 tokens longer: {_asked(rig, ingest, longer)}" for _ in range(2)]
        for count in (1, 16, 16):
            seconds = first_tokens(rig.model, ingest, asking, count)
            text.append(f"{count} first tokens, video ended once: {1000 * seconds:.1f} ms")
        text += _by_layer(rig, ingest, asking)
        text.append(_profiled(lambda: first_token(rig.model, ingest, asking), rig))
    return "\n".join(text)


def _asked(rig: Rig, ingest: Ingest, asking: Asking) -> str:
    """Milliseconds and GiB of one question."""
    device, found = rig.subject.device, []
    before = allocated_bytes(device)
    forget_peak(device)
    seconds = seconds_of(lambda: found.append(first_token(rig.model, ingest, asking)), device)
    peak, after = peak_bytes(device), allocated_bytes(device)
    line = f"{1000 * seconds:.1f} ms"
    if before is not None and peak is not None and after is not None:
        line += f", {before / GIB:.3f} GiB before, {peak / GIB:.3f} at most, {after / GIB:.3f} held"
    return line


def _by_layer(rig: Rig, ingest: Ingest, asking: Asking) -> list[str]:
    """Milliseconds of each layer on a waiting device, and the most GiB up to its end."""
    device = rig.subject.device
    spent: list[tuple[float, int | None]] = []
    forget_peak(device)
    with _timed_layers(rig, spent):
        first_token(rig.model, ingest, asking)
    lines = [f"layers, each waited for: {1000 * sum(ms for ms, _ in spent):.1f} ms"]
    for number, (seconds, peak) in enumerate(spent):
        kind = type(rig.model.decoder.layers[number]).__name__
        most = "" if peak is None else f", {peak / GIB:.3f} GiB"
        lines.append(f"  {number:2d} {kind:12s} {1000 * seconds:6.2f} ms{most}")
    return lines


@contextmanager
def _timed_layers(rig: Rig, spent: list[tuple[float, int | None]]) -> Iterator[None]:
    device, began = rig.subject.device, [0.0]

    def before(*_: object) -> None:
        synchronize(device)
        began[0] = time.perf_counter()

    def after(*_: object) -> None:
        synchronize(device)
        spent.append((time.perf_counter() - began[0], peak_bytes(device)))

    handles = []
    for layer in rig.model.decoder.layers:
        handles += [layer.register_forward_pre_hook(before), layer.register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


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
