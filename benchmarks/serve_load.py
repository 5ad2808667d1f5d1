"""Many sessions at once: errors, latencies and the server's memory over time.

    python benchmarks/serve_load.py [--sessions 1 10 50] [--minutes 10] [--fps 0.5] [--ask-every 30]

A real server process; every session is a WebSocket that sends JPEG frames at a steady rate and asks a
question now and then, nobody in step with anybody else. Anchors are bounded, so that a session's memory
is constant by design once they are full and the slope measures the server. One JSON line per number of
sessions, with what else the machine did meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import record
from PIL import Image
from websockets.asyncio.client import ClientConnection, connect

from spatial_ttt.loading import SMALL_SIZE
from spatial_ttt.serve.client import Server
from spatial_ttt.serve.frames import Encoding, WireFrame, pack

QUESTIONS = (
    "How many chair(s) are in this room?",
    "What is the size of this room (in square meters)?",
    "How many table(s) are in this room?",
)
WARM_UP = 0.4
"""Share of the run whose memory is not part of the slope: anchors, buffers and pages fill."""


@dataclass
class Load:
    """What all clients have seen so far."""

    frame_s: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    answer_s: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    late: int = 0
    memory: list[tuple[float, float, float, float]] = field(default_factory=list)
    """(s, resident MB of server and decoders, share of the machine's CPU they used, and of everybody)"""


def main() -> None:
    """Measure each number of sessions against a fresh server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--fps", type=float, default=0.5, help="frames per second of each session")
    parser.add_argument("--ask-every", type=float, default=30.0, help="seconds, per session")
    parser.add_argument("--model", help="checkpoint folder instead of the shipped model")
    parser.add_argument("--anchor-bytes", default="6M")
    parser.add_argument("--out", type=Path, default=record.RESULTS / "serve_load.jsonl")
    options = parser.parse_args()
    for count in options.sessions:
        line = record.machine() | {"cores": len(os.sched_getaffinity(0))} | measure(options, count)
        record.append(options.out, [line])
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def measure(options: argparse.Namespace, count: int) -> dict[str, Any]:
    """One server, `count` sessions."""
    load = Load()
    before = os.getloadavg()
    with server(options) as (url, process):
        asyncio.run(run_all(url, process, options, count, load))
        with Server(url) as client:
            info = client.info()
            kept = [client.session(s["id"]).stats() for s in client.sessions()]
    lost = sum(s["refused"] + s["skipped"] for s in kept)
    seconds = load.memory[-1][0] - load.memory[0][0]
    return {
        "sessions": count,
        "minutes": round(seconds / 60, 2),
        "fps": options.fps,
        "ask_every_s": options.ask_every,
        "model": info["model"],
        "frames": len(load.frame_s),
        "answers": len(load.answer_s),
        "errors": len(load.errors) + lost,
        "first_errors": load.errors[:3],
        "late_frames": load.late,
        "frame_ms": percentiles(load.frame_s),
        "first_piece_ms": percentiles(load.first_s),
        "answer_ms": percentiles(load.answer_s),
        "cpu_share": round(float(np.mean([m[2] for m in load.memory[1:]])), 3),
        "machine_cpu_share": round(float(np.mean([m[3] for m in load.memory[1:]])), 3),
        "loadavg": {"before": before, "after": os.getloadavg()},
        "anchor_bytes": options.anchor_bytes,
        "niceness": os.nice(0),
    } | slope(load.memory)


@contextmanager
def server(options: argparse.Namespace) -> Iterator[tuple[str, psutil.Process]]:
    """`spatial-ttt serve` on a free port, saving to a folder of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "spatial_ttt", "serve", "--port", str(port), "--snapshot-dir", folder,
            "--anchor-bytes", options.anchor_bytes, "--max-state-bytes", "16G", "--decoders", "1",
            *(["--model", options.model] if options.model else []),
        ]  # fmt: skip
        process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
        try:
            wait_until_up(f"http://127.0.0.1:{port}", process)
            yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(timeout=120)


def wait_until_up(url: str, process: subprocess.Popen[bytes]) -> None:
    """Until the server answers; ends the benchmark where it died."""
    with Server(url) as client:
        while process.poll() is None:
            with suppress(Exception):
                client.call("GET", "/healthz")
                return
            time.sleep(0.2)
    raise SystemExit("the server did not start")


async def run_all(
    url: str, process: psutil.Process, options: argparse.Namespace, count: int, load: Load
) -> None:
    """All clients until the time is over."""
    with Server(url) as client:
        sessions = [client.open(f"load {n}").session_id for n in range(count)]
    frames = make_frames()
    stop_at = time.monotonic() + 60 * options.minutes
    watcher = asyncio.create_task(watch_memory(process, load))
    clients = [
        asyncio.create_task(
            Client(f"{url.replace('http', 'ws')}/v1/sessions/{session}/stream", load, frames).run(
                number / count, stop_at, options
            )
        )
        for number, session in enumerate(sessions)
    ]
    await asyncio.gather(*clients)
    watcher.cancel()


def make_frames() -> list[bytes]:
    """JPEG files of a moving texture, as large as a camera's small pictures."""
    height, width = (4 * side for side in SMALL_SIZE)
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    files = []
    for step in range(32):
        image = Image.fromarray(np.roll(coarse, step, axis=1)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        out = io.BytesIO()
        image.save(out, "JPEG", quality=85)
        files.append(out.getvalue())
    return files


class Client:
    """One session's camera and its curious user."""

    def __init__(self, url: str, load: Load, frames: list[bytes]) -> None:
        self._url, self._load, self._frames = url, load, frames
        self._sent: dict[int, float] = {}
        self._asked: dict[str, float] = {}
        self._first: set[str] = set()

    async def run(self, share: float, stop_at: float, options: argparse.Namespace) -> None:
        """Send, ask, listen; begins `share` of a period after the first one does."""
        await asyncio.sleep(share / options.fps)
        try:
            async with connect(self._url, compression=None, ping_timeout=None) as line:
                listener = asyncio.create_task(self._listen(line))
                await asyncio.gather(
                    self._send(line, stop_at, options.fps),
                    self._ask(line, share, stop_at, options.ask_every),
                )
                deadline = time.monotonic() + 60
                while (self._sent or self._asked) and time.monotonic() < deadline:
                    await asyncio.sleep(0.1)
                if self._sent or self._asked:
                    self._load.errors.append("no answer within a minute after the end")
                listener.cancel()
        except Exception as error:
            self._load.errors.append(f"{type(error).__name__}: {error}")

    async def _send(self, line: ClientConnection, stop_at: float, fps: float) -> None:
        begin, number = time.monotonic(), 0
        while time.monotonic() < stop_at:
            content = self._frames[number % len(self._frames)]
            message = pack(WireFrame(number, number / fps, Encoding.JPEG, content))
            self._sent[number] = time.monotonic()
            await line.send(message)
            number += 1
            wait = begin + number / fps - time.monotonic()
            self._load.late += wait < -1 / fps
            await asyncio.sleep(max(0.0, wait))

    async def _ask(
        self, line: ClientConnection, share: float, stop_at: float, every: float
    ) -> None:
        number = 0
        first = every * (0.1 + 0.9 * share)
        await asyncio.sleep(min(first, max(0.0, stop_at - time.monotonic())))
        while time.monotonic() < stop_at:
            ref = str(number)
            request = {"type": "ask", "ref": ref, "question": QUESTIONS[number % len(QUESTIONS)]}
            self._asked[ref] = time.monotonic()
            await line.send(json.dumps(request | {"max_new_tokens": 16}))
            number += 1
            await asyncio.sleep(min(every, max(0.0, stop_at - time.monotonic())))

    async def _listen(self, line: ClientConnection) -> None:
        async for text in line:
            message = json.loads(text)
            now = time.monotonic()
            if message["type"] == "ack":
                self._load.frame_s.append(now - self._sent.pop(message["id"]))
                if message["status"] != "watched":
                    self._load.errors.append(f"frame {message['status']}: {message.get('error')}")
            elif message["type"] == "piece" and message["ref"] not in self._first:
                self._first.add(message["ref"])
                self._load.first_s.append(now - self._asked[message["ref"]])
            elif message["type"] == "done":
                self._load.answer_s.append(now - self._asked.pop(message["ref"]))
            elif message["type"] in ("error", "refused"):
                self._load.errors.append(message["error"]["message"])


async def watch_memory(process: psutil.Process, load: Load) -> None:
    """Resident memory and CPU of the server and its decoders, once a second."""
    started, before = time.monotonic(), None
    while True:
        tree = [process, *process.children(recursive=True)]
        resident = spent = 0.0
        for item in tree:
            with suppress(psutil.Error):
                resident += item.memory_info().rss / 1e6
                spent += sum(item.cpu_times()[:2])
        now = time.monotonic() - started
        share = 0.0
        if before is not None:
            share = (spent - before[1]) / (now - before[0]) / len(os.sched_getaffinity(0))
        load.memory.append((now, resident, share, psutil.cpu_percent() / 100))
        before = (now, spent)
        await asyncio.sleep(1.0)


def percentiles(seconds: list[float]) -> dict[str, float] | None:
    """p50, p95, p99 and the worst, milliseconds."""
    if not seconds:
        return None
    values = np.percentile(seconds, (50, 95, 99, 100)) * 1e3
    return dict(
        zip(("p50", "p95", "p99", "max"), (round(float(v), 1) for v in values), strict=True)
    )


def slope(memory: list[tuple[float, float, float, float]]) -> dict[str, Any]:
    """Memory's trend after the warm-up: MB per minute with twice its standard error.

    Samples of one second hang together, so the error is that of minute (at least five) means.
    """
    start = WARM_UP * memory[-1][0]
    kept = np.array([(t, m) for t, m, *_ in memory if t >= start])
    pieces = np.array_split(kept, max(5, min(30, int((kept[-1, 0] - kept[0, 0]) / 20))))
    means = np.array([piece.mean(0) for piece in pieces if len(piece)])
    t, m = means[:, 0] / 60, means[:, 1]
    centred = t - t.mean()
    rate = float((centred * m).sum() / (centred**2).sum())
    rest = m - m.mean() - rate * centred
    error = float(np.sqrt((rest**2).sum() / max(1, len(m) - 2) / (centred**2).sum()))
    return {
        "memory_mb": {"start": round(float(means[0, 1]), 1), "end": round(float(means[-1, 1]), 1)},
        "memory_slope_mb_per_min": round(rate, 3),
        "memory_slope_error_mb_per_min": round(2 * error, 3),
    }


if __name__ == "__main__":
    main()
