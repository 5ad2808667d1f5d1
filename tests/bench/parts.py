"""A subject and a plan that measure in seconds on a CPU."""

from __future__ import annotations

from typing import Any

import torch

from spatial_ttt.bench.plan import BenchPlan
from spatial_ttt.bench.rig import Rig, open_rig
from spatial_ttt.bench.subject import Subject, open_subject

SIZE = (64, 64)
SLOT_TOKENS = 8 + 4 + 1


def small_subject() -> Subject:
    """The test preset on frames of 64 x 64 pixels."""
    return open_subject("test", SIZE, torch.device("cpu"), torch.float32)


def small_plan(**changes: Any) -> BenchPlan:
    """A few frames of everything."""
    values: dict[str, Any] = {
        "measures": ("prefill", "question", "live", "bounded", "sessions"),
        "frames": (4, 12),
        "slots_per_piece": 2,
        "repeats": 2,
        "question_tokens": 5,
        "questions": 3,
        "answer_tokens": 3,
        "live_before": 4,
        "live_slots": 6,
        "ask_every": 4,
        "bounded_frames": 96,
        "anchor_bytes": 400_000,
        "sessions": 3,
        "session_before": 3,
        "session_slots": 2,
    }
    return BenchPlan(**(values | changes))


def small_rig(mode: str = "exact", **changes: Any) -> Rig:
    """The loaded model of `small_subject`."""
    return open_rig(small_plan(**changes), small_subject(), mode)
