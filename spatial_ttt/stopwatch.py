"""Seconds that parts of a session take, told without waiting for the device."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock

import torch

from spatial_ttt.stream_state import Timings


class Stopwatch:
    """Adds up seconds by part: on a GPU those between two events of its own clock, elsewhere those of the host.

    A part of a GPU counts once the device is through with it. Safe for threads.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._timings = Timings()
        self._coming: deque[tuple[str, torch.cuda.Event, torch.cuda.Event]] = deque()
        self._lock = Lock()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time what is done inside as the part of this name, a field of `Timings`."""
        if not self._on_gpu:
            started = time.perf_counter()
            yield
            self.add(name, time.perf_counter() - started)
            return
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        yield
        last.record()
        with self._lock:
            self._coming.append((name, first, last))
            self._count()

    def add(self, name: str, seconds: float) -> None:
        """Count so many seconds more for a part."""
        with self._lock:
            self._add(name, seconds)

    def read(self) -> Timings:
        """The seconds so far."""
        with self._lock:
            self._count()
            return replace(self._timings)

    def _count(self) -> None:
        while self._coming and self._coming[0][2].query():
            name, first, last = self._coming.popleft()
            self._add(name, first.elapsed_time(last) / 1e3)

    def _add(self, name: str, seconds: float) -> None:
        setattr(self._timings, name, getattr(self._timings, name) + seconds)
