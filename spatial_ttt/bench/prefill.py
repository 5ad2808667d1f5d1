"""Time to first token and peak memory against the number of frames: stock beside ours."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from spatial_ttt.bench.asking import choose, words
from spatial_ttt.bench.clock import GIB, forget_peak, peak_bytes, percentile, seconds_of
from spatial_ttt.bench.flops import Clip, flops, utilisation
from spatial_ttt.bench.ingest import Ingest
from spatial_ttt.bench.memory import Held, StateBytes, memory_by_part, state_bytes
from spatial_ttt.bench.plan import FRAMES_PER_SLOT, BenchPlan
from spatial_ttt.bench.record import Line
from spatial_ttt.bench.rig import Rig, Tick
from spatial_ttt.bench.stock import Stock
from spatial_ttt.inference import last_slots

WARM_FRAMES = 1024
"""A warm-up run is the measured run itself, or this long where that is longer."""


def measure_prefill(rig: Rig, frames: int) -> Line:
    """A whole clip of ours, watched piece by piece, and the first token of an answer."""
    plan, subject = rig.plan, rig.subject
    ingest = rig.open()
    times = _repeat(lambda n: read_clip(rig, ingest, n), frames, plan.repeats, subject.device)
    peak = peak_bytes(subject.device)
    parts = flops(subject, rig.mode, Clip(frames, plan.question_tokens), rig.anchors)
    line = rig.line(frames) | _seconds(times, parts, subject.device, plan)
    line |= rig.memory(peak, state_bytes(ingest.view))
    return line | {"tokens": line["tokens"] + plan.question_tokens}


def read_clip(rig: Rig, ingest: Ingest, frames: int) -> None:
    """Watch a clip from its beginning and choose the first token of an answer, as a session's `finish` does."""
    plan, slots = rig.plan, frames // 2
    last = slots
    if slots > plan.slots_per_piece:
        last = last_slots(plan.slots_per_piece, rig.subject.config)
    ingest.restart()
    rig.push(ingest, slots - last)
    question = words(rig.model, plan.question_tokens)
    choose(rig.model, ingest.finish([rig.frames(last)], question, plan.answer_tokens))
    rig.tick(FRAMES_PER_SLOT * last)


def measure_stock(stock: Stock, pool: Tensor, plan: BenchPlan, frames: int, tick: Tick) -> Line:
    """The same clip through stock Qwen3-VL; `pool` holds frames that are repeated."""
    subject = stock.subject

    def run(count: int) -> None:
        stock.first_token(pool, count, plan.question_tokens)
        tick(count)

    times = _repeat(run, frames, plan.repeats, subject.device)
    peak = peak_bytes(subject.device)
    tokens = frames // 2 * subject.slot_tokens + plan.question_tokens
    states = StateBytes(0, stock.cache_bytes(tokens))
    held = Held(stock.weight_bytes, stock.patch_bytes(frames), states)
    parts = flops(subject, "stock", Clip(frames, plan.question_tokens), None)
    return {
        "frames": frames,
        "tokens": tokens,
        "slots_per_piece": None,
        "engine": "transformers",
        **_seconds(times, parts, subject.device, plan),
        "peak_gib": None if peak is None else peak / GIB,
        "memory_gib": memory_by_part(held, peak),
    }


def _repeat(
    run: Callable[[int], None], frames: int, repeats: int, device: torch.device
) -> list[float]:
    """Warm up, start a new peak, and time every repeat."""
    run(min(frames, WARM_FRAMES))
    forget_peak(device)
    return [seconds_of(lambda: run(frames), device) for _ in range(repeats)]


def _seconds(
    times: list[float], parts: dict[str, float], device: torch.device, plan: BenchPlan
) -> Line:
    median = percentile(times, 50)
    return {
        "seconds_to_first_token": median,
        "all_seconds": times,
        "tflop_by_part": {name: count / 1e12 for name, count in parts.items()},
        **utilisation(parts, median, device, plan.peak_tflops),
    }
