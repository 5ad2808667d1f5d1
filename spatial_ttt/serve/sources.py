"""Sources that the server watches for a session: cameras by the operator's names, procedural walks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import asdict

from spatial_ttt.errors import BudgetError, SessionError, SpatialTTTError
from spatial_ttt.serve.hosted import HostedSession
from spatial_ttt.serve.media import Decoders
from spatial_ttt.serve.pool import SessionPool
from spatial_ttt.serve.problems import Problem, not_found
from spatial_ttt.serve.records import WalkSpec
from spatial_ttt.serve.steps import background
from spatial_ttt.video.frame import Frame

log = logging.getLogger(__name__)


class Sources:
    """At most one source per session."""

    def __init__(self, pool: SessionPool, decoders: Decoders, cameras: Mapping[str, str]) -> None:
        self._pool = pool
        self._decoders = decoders
        self._cameras = cameras
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def cameras(self) -> list[str]:
        """Names that clients may use."""
        return sorted(self._cameras)

    def watch_camera(self, hosted: HostedSession, camera: str, fps: float) -> None:
        """Feed a session from a camera; raises a 404 Problem for a name the operator did not give."""
        if camera not in self._cameras:
            raise not_found("camera")
        frames = self._camera_frames(hosted, camera, fps)
        self._begin(hosted, f"camera {camera}", frames)

    def watch_walk(self, hosted: HostedSession, spec: WalkSpec, pace: float) -> None:
        """Feed a session from a procedural walk, `pace` times as fast as real time (0: at once)."""
        if hosted.record.num_frames:
            raise Problem(
                409, "not_empty", "a walk needs a session that has seen nothing; open a new one"
            )
        self._begin(hosted, f"walk {spec.seed}", self._walk_frames(spec, pace))
        hosted.record.walk = asdict(spec)

    def _begin(self, hosted: HostedSession, name: str, frames: AsyncGenerator[Frame, None]) -> None:
        if hosted.feeder is not None:
            raise Problem(409, "busy", f"the session watches {hosted.feeder}; stop that first")
        hosted.feeder = name
        task = background(self._feed(hosted, frames))
        self._tasks[hosted.record.session_id] = task

    async def stop(self, hosted: HostedSession) -> None:
        """End a session's source, if there is one; what it gave stays seen."""
        task = self._tasks.pop(hosted.record.session_id, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def stop_all(self) -> None:
        """End all sources."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _feed(self, hosted: HostedSession, frames: AsyncGenerator[Frame, None]) -> None:
        """Watch until the source ends, is stopped, or the session is full or closed."""
        end: str | None = None
        try:
            hosted.tell({"type": "source", "source": hosted.feeder})
            async with aclosing(frames) as source:
                async for frame in source:
                    ack = await hosted.watch_next(frame)
                    self._pool.metrics.frames.labels(ack.status).inc()
        except (BudgetError, SessionError, Problem) as error:
            end = str(error)
        except SpatialTTTError as error:
            end = str(error)
            log.warning("%s of session %s: %s", hosted.feeder, hosted.record.session_id, error)
        finally:
            hosted.feeder = None
            if self._tasks.get(hosted.record.session_id) is asyncio.current_task():
                del self._tasks[hosted.record.session_id]
            hosted.tell({"type": "source", "source": None, "error": end})

    async def _camera_frames(
        self, hosted: HostedSession, camera: str, fps: float
    ) -> AsyncGenerator[Frame, None]:
        """A camera's frames, their times after everything the session has seen."""
        record = hosted.record
        start = record.seconds_seen + 1 / fps if record.num_frames else 0.0
        reconnects = 0
        async with aclosing(self._decoders.camera(self._cameras[camera], fps=fps)) as frames:
            async for seen in frames:
                if seen.reconnects != reconnects:
                    reconnects = seen.reconnects
                    hosted.tell({"type": "reconnected", "camera": camera, "times": reconnects})
                yield Frame(seen.frame.pixels, start + seen.frame.time)

    async def _walk_frames(self, spec: WalkSpec, pace: float) -> AsyncGenerator[Frame, None]:
        started = time.monotonic()
        async with aclosing(self._decoders.walk(asdict(spec))) as frames:
            async for frame in frames:
                if pace:
                    await asyncio.sleep(max(0.0, started + frame.time / pace - time.monotonic()))
                yield frame
