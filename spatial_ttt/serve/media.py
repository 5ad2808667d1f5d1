"""Decoding in processes that may die: frames through a few that stay, clips and cameras in one each."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple, TypeVar

import numpy as np

from spatial_ttt.errors import VideoError
from spatial_ttt.serve.frames import Encoding, WireFrame
from spatial_ttt.serve.media_worker import LENGTHS, Head
from spatial_ttt.serve.metrics import Metrics
from spatial_ttt.serve.settings import Limits
from spatial_ttt.serve.steps import background
from spatial_ttt.video.frame import Frame, Pixels

log = logging.getLogger(__name__)

T = TypeVar("T")

_MAX_HEAD = 64 << 20


class Worker:
    """One decoder process."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process = process
        self._in = process.stdin
        self._out = process.stdout

    @classmethod
    async def start(cls, *flags: str) -> Worker:
        """A fresh process; it inherits no secrets and one thread per library."""
        kept = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV", "TMPDIR")
        env = {name: os.environ[name] for name in kept if name in os.environ}
        env |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = (sys.executable, "-m", "spatial_ttt.serve.media_worker", *flags)
        return cls(await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, env=env))

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    async def send(self, head: Head, body: bytes | memoryview = b"") -> None:
        """Give it a job."""
        text = json.dumps(head).encode()
        self._in.write(LENGTHS.pack(len(text), len(body)) + text)
        self._in.write(bytes(body))
        await self._in.drain()

    async def receive(self) -> tuple[Head, bytes]:
        """Its next message; raises VideoError if it died."""
        try:
            head_bytes, body_bytes = LENGTHS.unpack(await self._out.readexactly(LENGTHS.size))
            if head_bytes > _MAX_HEAD:
                raise VideoError("the decoder said something that makes no sense; try again")
            head = json.loads(await self._out.readexactly(head_bytes))
            body = await self._out.readexactly(body_bytes)
        except (asyncio.IncompleteReadError, ValueError) as error:
            raise VideoError(
                "the decoder died on these bytes; the frame or clip is left out, the session goes on"
            ) from error
        return head, body

    async def stop(self) -> None:
        """End it, whatever it does."""
        if self._process.returncode is None:
            self._process.kill()
        self._in.close()
        while await self._out.read(
            1 << 20
        ):  # what it said last: unread, it would keep the pipe open
            pass
        await self._process.wait()
        with suppress(OSError):
            await self._in.wait_closed()


def picture(head: Head, body: bytes) -> Pixels:
    """The pixels [H, W, 3] of a message; raises VideoError for a refusal."""
    if "error" in head:
        raise VideoError(str(head["error"]))
    shape = (int(head["height"]), int(head["width"]), 3)
    if len(body) != shape[0] * shape[1] * 3:
        raise VideoError("the decoder said something that makes no sense; try again")
    return np.frombuffer(body, np.uint8).reshape(shape).copy()  # a writable one


class CameraFrame(NamedTuple):
    """A frame of a source that the server watches itself."""

    frame: Frame
    reconnects: int


class Decoders:
    """The decoder processes of a server."""

    def __init__(self, count: int, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._idle: asyncio.Queue[asyncio.Task[Worker] | None] = asyncio.Queue()
        for _ in range(count):
            self._idle.put_nowait(None)  # started when first wanted
        self._streams = asyncio.Semaphore(4 * count)
        self.workers: set[Worker] = set()
        """Processes that run now."""
        self._chores: set[asyncio.Task[Any]] = set()

    async def pixels(self, frame: WireFrame) -> Pixels:
        """The pixels of a frame as it came; raises VideoError for what is no picture."""
        if frame.encoding == Encoding.RAW:
            height, width = frame.size
            if height * width > self._limits.max_pixels:
                raise VideoError(
                    f"a raw frame of {height}x{width} pixels; at most {self._limits.max_pixels} are taken"
                )
            return np.frombuffer(frame.content, np.uint8).reshape(height, width, 3).copy()
        return await self.image(frame.content)

    async def image(self, content: bytes | memoryview) -> Pixels:
        """A JPEG, PNG or WebP picture; raises VideoError, also where the decoder died or took too long."""
        seat = await self._idle.get()
        worker = seat or self._chore(self._start())
        is_sound = False
        try:
            async with asyncio.timeout(self._limits.decode_timeout_s):
                ready = await asyncio.shield(worker)
                await ready.send({"job": "image", "max_pixels": self._limits.max_pixels}, content)
                head, body = await ready.receive()
            is_sound = True
        except TimeoutError as error:
            raise VideoError(
                f"decoding took longer than {self._limits.decode_timeout_s} s; the frame is left out"
            ) from error
        except OSError as error:
            raise VideoError("the decoder died on these bytes; the frame is left out") from error
        finally:
            # Also when the caller was cancelled: an answer nobody read must not meet the next job.
            self._idle.put_nowait(worker if is_sound else None)
            if not is_sound:
                self._metrics.decoder_deaths.inc()
                self._chore(self._end(worker))
        return picture(head, body)

    async def _start(self, *flags: str) -> Worker:
        worker = await Worker.start(*flags)
        self.workers.add(worker)
        return worker

    async def _end(self, starting: asyncio.Task[Worker]) -> None:
        worker = await starting
        self.workers.discard(worker)
        await worker.stop()

    def _chore(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Something about a process that is done to its end, whoever leaves."""
        task = background(work)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)
        return task

    @asynccontextmanager
    async def job(
        self, head: Head, body: bytes = b"", *flags: str
    ) -> AsyncGenerator[AsyncGenerator[tuple[Head, bytes], None], None]:
        """A process for one job of many messages, gone with the block."""
        async with self._streams:
            starting = self._chore(self._start(*flags))
            try:
                worker = await asyncio.shield(starting)
                await worker.send(head, body)
                yield _messages(worker)
            finally:
                self._chore(self._end(starting))

    async def clip(
        self, content: bytes, *, fps: float | None = None, num_frames: int | None = None
    ) -> AsyncGenerator[Frame, None]:
        """The frames of a video file's bytes, sampled; raises VideoError."""
        head = {"job": "clip", "fps": fps, "num_frames": num_frames}
        async with self.job(head | {"max_pixels": self._limits.max_pixels}, content) as messages:
            while True:
                async with asyncio.timeout(6 * self._limits.decode_timeout_s):
                    message = await anext(messages, None)
                if message is None or "end" in message[0]:
                    return
                yield Frame(picture(*message), float(message[0]["time"]))

    async def camera(
        self, url: str, *, fps: float, max_reconnects: int = 1_000_000, timeout_s: float = 10.0
    ) -> AsyncGenerator[CameraFrame, None]:
        """Frames of a live source, over lost connections, until it is lost for good (VideoError)."""
        head: dict[str, Any] = {"job": "camera", "url": url, "fps": fps}
        head |= {"max_reconnects": max_reconnects, "timeout_s": timeout_s}
        head["max_pixels"] = self._limits.max_pixels
        async with self.job(head) as messages:
            async for message in messages:
                if "end" in message[0]:
                    return
                frame = Frame(picture(*message), float(message[0]["time"]))
                yield CameraFrame(frame, int(message[0]["reconnects"]))

    async def walk(self, spec: Head) -> AsyncGenerator[Frame, None]:
        """Frames of a walk through a procedural home (see `walks.WalkSpec`)."""
        async with self.job({"job": "walk", "spec": spec}, b"", "--trusted") as messages:
            async for message in messages:
                if "end" in message[0]:
                    return
                yield Frame(picture(*message), float(message[0]["time"]))

    async def plan(self, spec: Head) -> Head:
        """What is true of a walk's home."""
        async with self.job({"job": "plan", "spec": spec}, b"", "--trusted") as messages:
            head, _ = await anext(messages)
        if "error" in head:
            raise VideoError(str(head["error"]))
        plan: Head = head["plan"]
        return plan

    async def close(self) -> None:
        """End all processes."""
        while self._chores:
            await asyncio.wait(self._chores)
        await asyncio.gather(*(worker.stop() for worker in self.workers))


async def _messages(worker: Worker) -> AsyncGenerator[tuple[Head, bytes], None]:
    while True:
        yield await worker.receive()
