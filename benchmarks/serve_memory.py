"""The memory of a server under load, by component, over time: what `serve_load.py` samples and fits."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from typing import Any, NamedTuple

import httpx
import numpy as np
import psutil
from scipy.stats import t as student

SCRAPE_EVERY = 5
"""Seconds between two looks at the server's own figures."""


class Told(NamedTuple):
    """What the server says of itself, MB."""

    state: float  # what sessions remember
    timelines: float
    live: float  # allocated by its heap and not freed


class Sample(NamedTuple):
    """The server at one moment; memory in MB."""

    time: float  # s
    server: float
    decoders: float
    cpu: float  # share of the machine that server and decoders used
    machine_cpu: float  # share that everybody used
    told: Told | None  # None: not asked at this moment


async def watch_memory(
    url: str, process: psutil.Process, samples: list[Sample], stop_at: float
) -> None:
    """Memory and CPU of the server and its decoders, once a second until `stop_at`."""
    before: tuple[float, float] | None = None
    fresh = httpx.Limits(max_keepalive_connections=0)  # a server may close a line that is idle
    async with httpx.AsyncClient(timeout=60, limits=fresh) as client:
        while (now := time.monotonic()) < stop_at:
            resident, spent = [], 0.0
            for item in (process, *process.children(recursive=True)):
                with suppress(psutil.Error):
                    resident.append(item.memory_info().rss / 1e6)
                    spent += sum(item.cpu_times()[:2])
            share = 0.0
            if before is not None:
                share = (spent - before[1]) / (now - before[0]) / len(os.sched_getaffinity(0))
            told = await scrape(client, url) if len(samples) % SCRAPE_EVERY == 0 else None
            everybody = psutil.cpu_percent() / 100
            samples.append(Sample(now, resident[0], sum(resident[1:]), share, everybody, told))
            before = (now, spent)
            await asyncio.sleep(max(0.0, now + 1 - time.monotonic()))


async def scrape(client: httpx.AsyncClient, url: str) -> Told:
    """The server's own figures."""
    text = (await client.get(f"{url}/metrics")).text
    lines = (line for line in text.splitlines() if line.startswith("spatial_ttt_"))
    values = dict(line.split() for line in lines if "{" not in line)
    names = ("state_bytes", "timeline_bytes", "heap_live_bytes")
    return Told(*(float(values[f"spatial_ttt_{name}"]) / 1e6 for name in names))


def memory_trends(samples: list[Sample]) -> dict[str, Any]:
    """Level and slope of all memory and of each component.

    `other_live` is what the server has allocated beside states and timelines; `pages` is what it holds and has
    not allocated: the program, libraries and weights mapped from files, free memory not given back.
    """
    parts = {
        "resident": [(s.time, s.server + s.decoders) for s in samples],
        "server": [(s.time, s.server) for s in samples],
        "decoders": [(s.time, s.decoders) for s in samples],
    }
    asked = [(s, s.told) for s in samples if s.told is not None]
    if asked and asked[-1][1].live:
        parts |= {
            "state": [(s.time, told.state) for s, told in asked],
            "timelines": [(s.time, told.timelines) for s, told in asked],
            "other_live": [(s.time, told.live - told.state - told.timelines) for s, told in asked],
            "pages": [(s.time, s.server - told.live) for s, told in asked],
        }
    return {"memory": {name: slope(np.array(part)) for name, part in parts.items()}}


def slope(points: np.ndarray) -> dict[str, float]:
    """Least squares over (s, MB) [N, 2]: MB per minute, with half its 95 % interval (Student's t).

    Neighbouring samples hang together, so the errors are those of the means of minutes (at least five pieces).
    """
    length_s = points[-1, 0] - points[0, 0]
    pieces = np.array_split(points, min(len(points), max(5, round(length_s / 60))))
    means = np.array([piece.mean(0) for piece in pieces])
    t, m = (means[:, 0] - means[:, 0].mean()) / 60, means[:, 1]
    rate = float((t * m).sum() / (t**2).sum())
    rest = m - m.mean() - rate * t
    freedom = max(1, len(m) - 2)
    error = np.sqrt((rest**2).sum() / freedom / (t**2).sum())
    return {
        "start_mb": round(float(m[0]), 2),
        "end_mb": round(float(m[-1]), 2),
        "mb_per_min": round(rate, 3),
        "plus_minus": round(float(error * student.ppf(0.975, freedom)), 3),
    }
