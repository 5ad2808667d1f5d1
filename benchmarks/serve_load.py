"""Many sessions at once: errors, latencies and the server's memory over time.

    python benchmarks/serve_load.py [--sessions 1 10 50] [--minutes 10] [--fps 0.5] [--ask-every 30] [--warm-up 60]

A real server process; every session is a WebSocket that sends JPEG frames at a steady rate and asks a
question now and then, nobody in step with anybody else. Anchors are bounded, so that a session's memory
is constant by design once they are full. Before anything is measured every session watches `--warm-up` slots
as fast as they are taken (its windows and anchors are full after about 50 with the shipped model), then all
send at their rate for `--settle` seconds. One JSON line per number of sessions, with the memory's slope by
component and what else the machine did meanwhile.
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
from serve_memory import Sample, memory_trends, watch_memory
from websockets.asyncio.client import ClientConnection, connect

from spatial_ttt.loading import SMALL_SIZE
from spatial_ttt.serve.client import Server
from spatial_ttt.serve.frames import Encoding, WireFrame, pack

QUESTIONS = (
    "How many chair(s) are in this room?",
    "What is the size of this room (in square meters)?",
    "How many table(s) are in this room?",
)
SPREAD_SLOTS = 10
"""Sessions are warmed up by up to so many slots more than others, so that their anchors' blocks (about ten
slots each) do not fill at the same moments."""


@dataclass
class Load:
    """What all clients have seen since the measurement began."""

    frame_s: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    answer_s: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    late: int = 0
    num_warm: int = 0
    begin: float = float("inf")
    """Frames and questions sent earlier are not counted (errors are)."""
    samples: list[Sample] = field(default_factory=list)


def main() -> None:
    """Measure each number of sessions against a fresh server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--fps", type=float, default=0.5, help="frames per second of each session")
    parser.add_argument("--ask-every", type=float, default=30.0, help="seconds, per session")
    parser.add_argument("--warm-up", type=int, default=60, help="slots of each session before")
    parser.add_argument("--settle", type=float, default=60.0, help="seconds at the rate before")
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
    samples = load.samples
    return {
        "sessions": count,
        "minutes": round((samples[-1].time - samples[0].time) / 60, 2),
        "fps": options.fps,
        "ask_every_s": options.ask_every,
        "warm_up_slots": options.warm_up,
        "settle_s": options.settle,
        "model": info["model"],
        "frames": len(load.frame_s),
        "answers": len(load.answer_s),
        "errors": len(load.errors) + lost,
        "first_errors": load.errors[:3],
        "late_frames": load.late,
        "frame_ms": percentiles(load.frame_s),
        "first_piece_ms": percentiles(load.first_s),
        "answer_ms": percentiles(load.answer_s),
        "cpu_share": round(float(np.mean([sample.cpu for sample in samples[1:]])), 3),
        "machine_cpu_share": round(
            float(np.mean([sample.machine_cpu for sample in samples[1:]])), 3
        ),
        "loadavg": {"before": before, "after": os.getloadavg()},
        "anchor_bytes": options.anchor_bytes,
        "niceness": os.nice(0),
    } | memory_trends(samples)


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
    """All clients: warm-up, settling, and the minutes that are measured."""
    with Server(url) as client:
        sessions = [client.open(f"load {n}").session_id for n in range(count)]
    frames, stop_at = make_frames(), asyncio.get_running_loop().create_future()
    clients = [
        asyncio.create_task(
            Client(f"{url.replace('http', 'ws')}/v1/sessions/{session}/stream", load, frames).run(
                number / count, stop_at, options
            )
        )
        for number, session in enumerate(sessions)
    ]
    while load.num_warm < count:
        if load.errors:
            raise SystemExit(f"the warm-up failed: {load.errors[0]}")
        await asyncio.sleep(0.1)
    load.begin = time.monotonic() + options.settle
    stop_at.set_result(load.begin + 60 * options.minutes)
    await asyncio.sleep(options.settle)
    watcher = asyncio.create_task(watch_memory(url, process, load.samples, stop_at.result()))
    await asyncio.gather(*clients)
    await watcher


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
        self._num_frames = self._num_questions = 0
        self._news = asyncio.Event()

    async def run(
        self, share: float, stop_at: asyncio.Future[float], options: argparse.Namespace
    ) -> None:
        """Warm up, then send, ask and listen; begins `share` of a period after the first one does."""
        try:
            async with connect(self._url, compression=None, ping_timeout=None) as line:
                listener = asyncio.create_task(self._listen(line))
                await self._warm_up(line, options.warm_up + int(SPREAD_SLOTS * share), options.fps)
                self._load.num_warm += 1
                until = await asyncio.shield(stop_at)
                await asyncio.sleep(share / options.fps)
                await asyncio.gather(
                    self._send(line, until, options.fps),
                    self._ask(line, share, until, options.ask_every),
                )
                await self._all_answered(60)
                if listener.done():
                    self._load.errors.append(f"the line ended: {listener.exception()}")
                listener.cancel()
        except Exception as error:
            self._load.errors.append(f"{type(error).__name__}: {error}")

    async def _warm_up(self, line: ClientConnection, slots: int, fps: float) -> None:
        """Fill windows and anchors: two frames a slot, one at a time, a question now and then."""
        for number in range(2 * slots):
            await self._send_one(line, fps)
            if number % 30 == 29:
                await self._ask_one(line)
            await self._all_answered(120)

    async def _all_answered(self, seconds: float) -> None:
        """Wait until nothing is on its way; an error after so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                while self._sent or self._asked:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            self._load.errors.append(
                f"no answer for {seconds:g} s: frames {sorted(self._sent)}, questions {sorted(self._asked)}"
            )

    async def _send_one(self, line: ClientConnection, fps: float) -> None:
        number = self._num_frames
        content = self._frames[number % len(self._frames)]
        self._num_frames += 1
        self._sent[number] = time.monotonic()
        await line.send(pack(WireFrame(number, number / fps, Encoding.JPEG, content)))

    async def _ask_one(self, line: ClientConnection) -> None:
        number = self._num_questions
        question = QUESTIONS[number % len(QUESTIONS)]
        request = {"type": "ask", "ref": str(number), "question": question, "max_new_tokens": 16}
        self._num_questions += 1
        self._asked[str(number)] = time.monotonic()
        await line.send(json.dumps(request))

    async def _send(self, line: ClientConnection, stop_at: float, fps: float) -> None:
        begin, number = time.monotonic(), 0
        while time.monotonic() < stop_at:
            await self._send_one(line, fps)
            number += 1
            wait = begin + number / fps - time.monotonic()
            self._load.late += wait < -1 / fps
            await asyncio.sleep(max(0.0, wait))

    async def _ask(
        self, line: ClientConnection, share: float, stop_at: float, every: float
    ) -> None:
        first = every * (0.1 + 0.9 * share)
        await asyncio.sleep(min(first, max(0.0, stop_at - time.monotonic())))
        while time.monotonic() < stop_at:
            await self._ask_one(line)
            await asyncio.sleep(min(every, max(0.0, stop_at - time.monotonic())))

    async def _listen(self, line: ClientConnection) -> None:
        async for text in line:
            message = json.loads(text)
            if message["type"] == "ack":
                self._note(self._load.frame_s, self._sent.pop(message["id"]))
                if message["status"] != "watched":
                    self._load.errors.append(f"frame {message['status']}: {message.get('error')}")
            elif message["type"] == "piece" and message["ref"] not in self._first:
                self._first.add(message["ref"])
                self._note(self._load.first_s, self._asked[message["ref"]])
            elif message["type"] == "done":
                self._note(self._load.answer_s, self._asked.pop(message["ref"]))
            elif message["type"] in ("error", "refused"):
                self._load.errors.append(message["error"]["message"])
            self._news.set()

    def _note(self, seconds: list[float], sent: float) -> None:
        if sent >= self._load.begin:
            seconds.append(time.monotonic() - sent)


def percentiles(seconds: list[float]) -> dict[str, float] | None:
    """p50, p95, p99 and the worst, milliseconds."""
    if not seconds:
        return None
    values = np.percentile(seconds, (50, 95, 99, 100)) * 1e3
    return dict(
        zip(("p50", "p95", "p99", "max"), (round(float(v), 1) for v in values), strict=True)
    )


if __name__ == "__main__":
    main()
