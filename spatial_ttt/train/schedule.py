"""Rates and windows as functions of progress."""

from __future__ import annotations

import math


def cosine_scale(step: int, warmup_steps: int, progress: float, floor: float = 0.0) -> float:
    """Share of the peak rate: linear warm-up over `warmup_steps`, then a cosine over `progress` 0..1."""
    warm = min(1.0, (step + 1) / max(warmup_steps, 1))
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
    return warm * (floor + (1.0 - floor) * cosine)


def annealed_window(progress: float, first: int, last: int) -> int:
    """Tokens of the sliding window: linear from `first` to `last` as `progress` goes from 0 to 1."""
    return round(first + (last - first) * min(max(progress, 0.0), 1.0))
