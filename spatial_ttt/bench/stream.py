"""A stream in use: questions after it, slots one at a time, and hours of it in bounded memory."""

from __future__ import annotations

from spatial_ttt.bench.asking import Answered, Asking, answer, first_tokens
from spatial_ttt.bench.clock import (
    GIB,
    allocated_bytes,
    forget_peak,
    latencies,
    peak_bytes,
    percentile,
    seconds_of,
)
from spatial_ttt.bench.ingest import Ingest
from spatial_ttt.bench.memory import state_bytes
from spatial_ttt.bench.plan import FRAMES_PER_SLOT
from spatial_ttt.bench.record import Line
from spatial_ttt.bench.rig import Rig

SHARE_FRAMES = 1000
"""Frames at the beginning and at the end of a bounded stream that are compared."""


def measure_questions(rig: Rig, ingest: Ingest, frames: int) -> Line:
    """Questions on forks of a stream that has watched `frames` frames."""
    plan, device = rig.plan, rig.subject.device
    ask_one(rig, ingest, 2)  # kernels and buffers of this length
    forget_peak(device)
    answers: list[Answered] = []

    def ask_all() -> None:
        for _ in range(plan.questions):
            answers.append(ask_one(rig, ingest, plan.answer_tokens))

    total = seconds_of(ask_all, device)
    peak = peak_bytes(device)
    asking = Asking(plan.question_tokens, plan.answer_tokens)
    together = first_tokens(rig.model, ingest, asking, plan.questions)
    first = [one.first_token for one in answers]
    later = sum(one.rest for one in answers)
    decoded = plan.questions * (plan.answer_tokens - 1)
    return (
        rig.line(frames)
        | {
            "seconds_to_first_token": percentile(first, 50),
            "all_seconds": first,
            "questions": plan.questions,
            "seconds_first_tokens": sum(first),
            "seconds_first_tokens_together": together,
            "seconds_all_answers": total,
            "answer_tokens": plan.answer_tokens,
            "tokens_per_second": decoded / later if decoded else None,
        }
        | rig.memory(peak, state_bytes(ingest.view))
    )


def ask_one(rig: Rig, ingest: Ingest, answer_tokens: int = 1) -> Answered:
    """One question on a fork of the stream as it stands."""
    return answer(rig.model, ingest, Asking(rig.plan.question_tokens, answer_tokens))


def measure_live(rig: Rig, ingest: Ingest, *, asks: bool) -> Line:
    """Slots one at a time on a stream under way; with `asks` a question comes every so many of them."""
    plan, device = rig.plan, rig.subject.device
    rig.warm_singly(ingest)
    before = ingest.view.num_tokens // rig.subject.slot_tokens
    forget_peak(device)
    seconds, questions = [], []
    for number in range(plan.live_slots):
        if asks and number % plan.ask_every == 0:
            questions.append(ask_one(rig, ingest).first_token)
        seconds.append(seconds_of(lambda: ingest.watch([rig.pool[:FRAMES_PER_SLOT]]), device))
        rig.tick(FRAMES_PER_SLOT)
    peak = peak_bytes(device)
    return (
        rig.line(FRAMES_PER_SLOT * before)
        | {
            "slots_per_piece": 1,
            "seconds_to_first_token": percentile(questions, 50) if questions else None,
            "asks_every": plan.ask_every if asks else None,
            "slots": plan.live_slots,
            **latencies(seconds),
            "frames_per_second": FRAMES_PER_SLOT * len(seconds) / sum(seconds),
            "all_seconds": seconds,
        }
        | rig.memory(peak, state_bytes(ingest.view))
    )


def measure_bounded(rig: Rig) -> Line:
    """A long stream in bounded memory: its beginning against its end."""
    plan = rig.plan
    share = min(SHARE_FRAMES, plan.bounded_frames // 4) // FRAMES_PER_SLOT
    share = max(1, share // plan.slots_per_piece) * plan.slots_per_piece
    rig.push(rig.open(), share)  # warm: kernels of every length up to the budget
    ingest = rig.open()
    begin = _stretch(rig, ingest, share)
    whole = plan.bounded_frames // FRAMES_PER_SLOT
    middle = _stretch(rig, ingest, whole - 2 * share)
    end = _stretch(rig, ingest, share)
    frames = plan.bounded_frames
    peaks = [part["peak_gib"] for part in (begin, middle, end) if part["peak_gib"] is not None]
    peak = round(GIB * max(peaks)) if peaks else None
    memory = rig.memory(peak, state_bytes(ingest.view))
    asked = ask_one(rig, ingest)
    seconds = sum(part["seconds"] for part in (begin, middle, end))
    return rig.line(frames) | {
        "seconds_to_first_token": asked.first_token,
        **memory,
        "frames_per_second": frames / seconds,
        "frames_compared": FRAMES_PER_SLOT * share,
        "first": begin,
        "last": end,
        "time_ratio": end["ms_per_slot"] / begin["ms_per_slot"],
        "state_ratio": end["state_bytes"] / begin["state_bytes"],
        "peak_ratio": end["peak_gib"] / begin["peak_gib"] if peaks else None,
    }


def _stretch(rig: Rig, ingest: Ingest, slots: int) -> Line:
    """Watch so many slots: seconds, and bytes at their end."""
    device = rig.subject.device
    forget_peak(device)
    seconds = seconds_of(lambda: rig.push(ingest, slots), device)
    peak, now = peak_bytes(device), allocated_bytes(device)
    return {
        "seconds": seconds,
        "ms_per_slot": 1000 * seconds / slots,
        "state_bytes": state_bytes(ingest.view).total,
        "peak_gib": None if peak is None else peak / GIB,
        "allocated_gib": None if now is None else now / GIB,
    }
