"""All sessions of a server: open in memory within the byte budget, or asleep on disk.

create / get (wakes) / fork / keep and restore a snapshot / close        watch over: save, put to sleep
A session that sleeps has its memory on disk only; whoever touches it next wakes it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any

from spatial_ttt.errors import CheckpointError
from spatial_ttt.loading import LoadedModel
from spatial_ttt.serve.budget import Ledger, session_budget
from spatial_ttt.serve.hosted import HostedSession
from spatial_ttt.serve.metrics import Metrics
from spatial_ttt.serve.problems import Problem, not_found
from spatial_ttt.serve.records import Clock, SessionRecord
from spatial_ttt.serve.settings import ServeSettings
from spatial_ttt.serve.steps import ModelSteps, unbroken
from spatial_ttt.serve.store import SnapshotStore, new_id
from spatial_ttt.session import StreamingSession
from spatial_ttt.steady_stream import SharedStream
from spatial_ttt.stream_state import StreamState

log = logging.getLogger(__name__)

_RETRY_S = 5.0
"""Wait after a failed save."""


class SessionPool:
    """The sessions of all owners. Everything but the disk and the model runs on the event loop."""

    def __init__(
        self, loaded: LoadedModel, settings: ServeSettings, steps: ModelSteps, metrics: Metrics
    ) -> None:
        self.loaded = loaded
        self.settings = settings
        self.steps = steps
        self.metrics = metrics
        self.budget = session_budget(loaded, settings.anchor_bytes)
        self.ledger = Ledger(settings.max_state_bytes)
        self.store = SnapshotStore(settings.snapshot_dir, settings.max_snapshot_bytes, loaded.model)
        self.open: dict[str, HostedSession] = {}
        self.asleep: dict[str, SessionRecord] = {}
        self.snapshots: dict[str, SessionRecord] = {}
        self.is_draining = False
        self.engine: SharedStream | None = None
        if loaded.model.device.type == "cuda":  # frames are replayed as captured work
            self.share_engine()
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._waking: dict[str, asyncio.Lock] = {}
        self.retry_at: dict[str, float] = {}
        """When a failed save is tried again, on the steady clock."""
        self.folder_lock = (
            asyncio.Lock()
        )  # what is known of the folder and what is in it change together
        for record in self.store.scan():
            self.adopt(record)

    def adopt(self, record: SessionRecord) -> None:
        """Know a session or snapshot that is on disk."""
        (self.asleep if record.kind == "session" else self.snapshots)[record.session_id] = record

    def share_engine(self) -> None:
        """Let one engine watch for all sessions; what it will need is set aside."""
        self.engine = SharedStream(self.loaded.model)
        self.ledger.set_aside(self.budget.engine_bytes)

    async def count_engine(self) -> None:
        """Set aside what the shared engine really holds by now, where that is more."""
        engine = self.engine
        if engine is not None:  # not on the event loop: it may be in the middle of a piece
            self.ledger.set_aside(await asyncio.to_thread(lambda: engine.num_bytes))

    # --- Opening ---------------------------------------------------------------------------------

    async def create(
        self, owner: str, *, name: str = "", max_frames: int | None = None, clock: Clock = "strict"
    ) -> HostedSession:
        """A new session; raises a 503 Problem where the budget has no room for it."""
        record = SessionRecord(
            new_id(), owner, name, max_frames or self.settings.max_frames, clock=clock
        )
        self._admit(record)
        hosted = HostedSession(record, self._session(record), self.steps)
        self.open[record.session_id] = hosted
        with suppress(CheckpointError):  # told as a warning, tried again
            await self.save(hosted)  # nearly nothing yet: from here on the session survives a crash
            # Sessions that were opened together are not all saved at the same moments afterwards.
            hosted.last_save -= random.random() * self.settings.snapshot_s
        return hosted

    @asynccontextmanager
    async def passing(self, owner: str, max_frames: int) -> AsyncGenerator[HostedSession, None]:
        """A session for one request, listed nowhere and saved never; its promise ends with the block."""
        record = SessionRecord(new_id(), owner, "", max_frames)
        self._admit(record)
        hosted = HostedSession(record, self._session(record), self.steps)
        try:
            yield hosted
        finally:
            self.ledger.release(record.session_id)
            await unbroken(hosted.close())

    def _admit(self, record: SessionRecord) -> None:
        if self.is_draining:
            raise Problem(503, "draining", "the server is being stopped; try again in a moment")
        mine = sum(hosted.record.owner == record.owner for hosted in self.open.values())
        if mine >= self.settings.limits.sessions_per_token:
            raise Problem(
                429, "too_many_sessions", f"{mine} sessions of yours are open; close one first"
            )
        try:
            self.ledger.promise(record.session_id, self.budget.bytes_for(record.max_frames))
        except Problem:
            self.metrics.turned_away.inc()
            raise

    def _session(self, record: SessionRecord) -> StreamingSession:
        return StreamingSession(
            self.loaded.model,
            self.loaded.processor,
            max_bytes=self.budget.bytes_for(record.max_frames),
            anchors=self.budget.anchors,
            steady=self.engine or False,
        )

    async def get(self, owner: str, session_id: str) -> HostedSession:
        """An owner's session, woken if it sleeps; a 404 Problem for anybody else's."""
        hosted = self.open.get(session_id)
        if hosted is None and session_id in self.asleep:
            self.record_of(owner, session_id)
            hosted = await unbroken(self._wake(session_id))
        if hosted is None or hosted.record.owner != owner:
            raise not_found("session")
        hosted.touch()
        return hosted

    async def _wake(self, session_id: str) -> HostedSession:
        async with self._waking.setdefault(session_id, asyncio.Lock()):
            if session_id in self.open:
                return self.open[session_id]
            record = self.asleep.get(session_id)
            if record is None:
                raise not_found("session")
            hosted = await self._load(record, record)
            del self.asleep[session_id]
            self.open[session_id] = hosted
            self._waking.pop(session_id, None)
            return hosted

    async def _load(self, source: SessionRecord, record: SessionRecord) -> HostedSession:
        """A session `record` with the memory that `source` names."""
        self._admit(record)
        try:
            session = await self.on_disk(self._read, source, record)
        except CheckpointError:
            self.ledger.release(record.session_id)
            raise
        return HostedSession(record, session, self.steps)

    def _read(self, source: SessionRecord, record: SessionRecord) -> StreamingSession:
        return StreamingSession.restore(
            self.store.state_path(source),
            self.loaded.model,
            self.loaded.processor,
            max_bytes=self.budget.bytes_for(record.max_frames),
            steady=self.engine or False,
        )

    def record_of(self, owner: str, session_id: str) -> SessionRecord:
        """An owner's session, open or asleep, without waking it."""
        hosted = self.open.get(session_id)
        record = hosted.record if hosted else self.asleep.get(session_id)
        if record is None or record.owner != owner:
            raise not_found("session")
        return record

    def records(self, owner: str) -> list[tuple[SessionRecord, bool]]:
        """An owner's sessions, the newest first, and whether each is open."""
        mine = [(h.record, True) for h in self.open.values() if h.record.owner == owner]
        mine += [(r, False) for r in self.asleep.values() if r.owner == owner]
        return sorted(mine, key=lambda item: -item[0].created_at)

    # --- Copies ----------------------------------------------------------------------------------

    async def fork(self, owner: str, session_id: str, name: str) -> HostedSession:
        """A second session that has seen the same and goes its own way."""
        parent = await self.get(owner, session_id)
        record = SessionRecord(new_id(), owner, name, parent.record.max_frames, origin=session_id)
        self._admit(record)
        with parent.in_use():
            self.open[record.session_id] = twin = await parent.fork(record)
        return twin

    async def keep(self, owner: str, session_id: str, name: str) -> SessionRecord:
        """Save a point to begin other sessions from; the session goes on."""
        hosted = await self.get(owner, session_id)
        with hosted.in_use():
            return await unbroken(self._keep(hosted, name))

    async def _keep(self, hosted: HostedSession, name: str) -> SessionRecord:
        record, state = await hosted.capture()
        kept = record.copy(
            session_id=new_id(),
            kind="snapshot",
            name=name or record.name,
            origin=record.session_id,
            created_at=time.time(),
            saved_at=time.time(),
            saved_id=record.next_id - 1,
            file=None,
        )
        async with self.folder_lock:
            # What people keep must not take the room that open sessions need to be saved in.
            await self._write(kept, state, self.state_bytes())
            self.snapshots[kept.session_id] = kept
        return kept

    def kept(self, owner: str) -> list[SessionRecord]:
        """An owner's snapshots, the newest first."""
        mine = [record for record in self.snapshots.values() if record.owner == owner]
        return sorted(mine, key=lambda record: -record.created_at)

    def snapshot(self, owner: str, snapshot_id: str) -> SessionRecord:
        """An owner's snapshot; a 404 Problem for anybody else's."""
        record = self.snapshots.get(snapshot_id)
        if record is None or record.owner != owner:
            raise not_found("snapshot")
        return record

    async def restore(self, owner: str, snapshot_id: str, name: str) -> HostedSession:
        """A new session that goes on where a snapshot was taken."""
        source = self.snapshot(owner, snapshot_id)
        record = source.copy(
            session_id=new_id(),
            kind="session",
            name=name or source.name,
            origin=snapshot_id,
            created_at=time.time(),
            saved_at=None,
            saved_id=-1,
            file=None,
        )
        hosted = await self._load(source, record)
        self.open[record.session_id] = hosted
        return hosted

    # --- Ending ----------------------------------------------------------------------------------

    async def close(self, owner: str, session_id: str) -> None:
        """Forget a session, in memory and on disk."""
        self.record_of(owner, session_id)
        await unbroken(self._close(session_id))

    async def _close(self, session_id: str) -> None:
        async with self.folder_lock:
            hosted = self.open.pop(session_id, None)
            self.retry_at.pop(session_id, None)
            self._waking.pop(session_id, None)
            if hosted is not None:
                await hosted.close()
                self.ledger.release(session_id)
            record = hosted.record if hosted else self.asleep.pop(session_id, None)
            if record is not None:
                await self.on_disk(self.store.delete, record)

    async def delete_snapshot(self, owner: str, snapshot_id: str) -> None:
        """Forget a snapshot."""
        record = self.snapshot(owner, snapshot_id)
        await unbroken(self._delete(record))

    async def _delete(self, record: SessionRecord) -> None:
        async with self.folder_lock:
            if self.snapshots.pop(record.session_id, None) is not None:
                await self.on_disk(self.store.delete, record)

    # --- Watching over ---------------------------------------------------------------------------

    async def save(self, hosted: HostedSession) -> None:
        """Save a session now; raises CheckpointError, and the session goes on."""
        try:
            await unbroken(hosted.save(self._write))
            self.retry_at.pop(hosted.record.session_id, None)
        except CheckpointError as error:
            hosted.warning = str(error)
            self.retry_at[hosted.record.session_id] = time.monotonic() + _RETRY_S
            raise

    async def _write(self, record: SessionRecord, state: StreamState, spare: int = 0) -> None:
        try:
            with self.metrics.save_seconds.time():
                await self.on_disk(self.store.save, record, state, spare)
        except CheckpointError:
            self.metrics.saves.labels("failed").inc()
            raise
        self.metrics.saves.labels("done").inc()

    def shutdown(self) -> None:
        """Wait for threads; the folder is free afterwards."""
        self.steps.shutdown()
        self._disk.shutdown(wait=True)
        self.store.close()

    async def on_disk(self, work: Any, *args: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(self._disk, work, *args))

    def state_bytes(self) -> int:
        """Bytes in use by open sessions."""
        return sum(h.session.state.decoder.num_bytes for h in self.open.values())

    def of_owner(self, owner: str) -> Iterable[HostedSession]:
        """Open sessions of an owner."""
        return (h for h in self.open.values() if h.record.owner == owner)
