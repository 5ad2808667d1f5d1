"""Seconds and bytes: timings that wait for the device, percentiles, peaks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch

GIB = float(2**30)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done everything it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Seconds from an idle device to an idle device again."""
    synchronize(device)
    began = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - began


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` percent of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share / 100 * len(ordered)) - 1)]


def latencies(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p90, p99 and the largest, in milliseconds."""
    found = {f"p{share}_ms": 1000 * percentile(seconds, share) for share in (50, 90, 99)}
    return found | {"max_ms": 1000 * max(seconds)}


def forget_peak(device: torch.device) -> None:
    """Start a new peak."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int | None:
    """Most bytes of tensors at once since `forget_peak`; None on a CPU, where nobody counts."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def allocated_bytes(device: torch.device) -> int | None:
    """Bytes of tensors now; None on a CPU."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else None


def free_memory(device: torch.device) -> None:
    """Give cached blocks back, so that the next measure starts like the first."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
