"""Looking after sessions that nobody looks at: saving, sleeping, moving house, the end of the server."""

from __future__ import annotations

import logging
import time

from spatial_ttt.errors import CheckpointError
from spatial_ttt.serve.hosted import HostedSession
from spatial_ttt.serve.pool import SessionPool
from spatial_ttt.serve.records import SessionRecord
from spatial_ttt.serve.steps import unbroken

log = logging.getLogger(__name__)

_LOOK_S = 5.0
"""How often the folder is looked at for sessions that were moved, and the shared engine is measured."""


class Caretaker:
    """Keeps a pool in order."""

    def __init__(self, pool: SessionPool) -> None:
        self._pool = pool
        self._settings = pool.settings
        self._looked_at = 0.0

    async def look_after(self) -> None:
        """One round: save what has changed long enough ago, put to sleep what nobody uses."""
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_S:
            self._looked_at = now
            await self.look_for_moved()
            await self._pool.count_engine()
        for hosted in list(self._pool.open.values()):
            if self._pool.retry_at.get(hosted.record.session_id, 0.0) > now:
                continue
            idle = now - hosted.last_used
            try:
                if hosted.is_dirty and now - hosted.last_save >= self._settings.snapshot_s:
                    await self._pool.save(hosted)
                if idle >= self._settings.idle_s and not hosted.users and not hosted.feeder:
                    await self.put_to_sleep(hosted)
            except CheckpointError as error:
                log.error("session %s cannot be saved: %s", hosted.record.session_id, error)

    async def look_for_moved(self) -> None:
        """Take over what another server's folder was emptied into this one, give up what was taken away."""
        async with self._pool.folder_lock:
            known = {**self._pool.asleep, **self._pool.snapshots}
            there = await self._pool.on_disk(self._pool.store.names)
            for session_id in (
                there - known.keys() - self._pool.open.keys() - self._pool.asleep.keys()
            ):
                record = await self._pool.on_disk(self._pool.store.read, session_id)
                if record is not None and session_id not in self._pool.open:
                    self._pool.adopt(record)
            for session_id in known.keys() - there:
                self._pool.asleep.pop(session_id, None)
                self._pool.snapshots.pop(session_id, None)

    async def put_to_sleep(self, hosted: HostedSession) -> bool:
        """Save a session and let its memory go, unless somebody uses it; whether it sleeps now.

        Raises CheckpointError and keeps it where it cannot be saved.
        """
        await self._pool.save(hosted)
        return await unbroken(hosted.retire(self._move))

    def _move(self, record: SessionRecord) -> None:
        """From the open sessions to those that sleep."""
        session_id = record.session_id
        if self._pool.open.pop(session_id, None) is not None:  # else it was closed in the meantime
            self._pool.asleep[session_id] = record
            self._pool.ledger.release(session_id)

    async def drain(self) -> list[str]:
        """Save everything before the end; returns the ids of sessions that could not be saved."""
        self._pool.is_draining = True
        lost = []
        for hosted in list(self._pool.open.values()):
            try:
                await self._pool.save(hosted)
            except CheckpointError as error:
                log.error("session %s is lost: %s", hosted.record.session_id, error)
                lost.append(hosted.record.session_id)
        return lost
