"""The parts of a running server, made and ended together."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import torch

from spatial_ttt.loading import LoadedModel
from spatial_ttt.serve import heap
from spatial_ttt.serve.auth import read_tokens
from spatial_ttt.serve.caretaker import Caretaker
from spatial_ttt.serve.limiter import Limiter
from spatial_ttt.serve.media import Decoders
from spatial_ttt.serve.metrics import Metrics
from spatial_ttt.serve.pool import SessionPool
from spatial_ttt.serve.settings import ServeSettings
from spatial_ttt.serve.sources import Sources
from spatial_ttt.serve.steps import ModelSteps

log = logging.getLogger(__name__)


_ROUND_S = 0.25
"""Between two rounds of looking after sessions: short, so that few saves are due in each."""
_HEAP_S = 10.0
"""Between two times that free memory is given back to the system, while there is work."""


class Service:
    """What routes work with."""

    def __init__(self, loaded: LoadedModel, settings: ServeSettings) -> None:
        self.loaded = loaded
        self.settings = settings
        self.limits = settings.limits
        self.tokens = read_tokens(settings.token_file)
        self.metrics = Metrics()
        self.steps = ModelSteps(settings.model_threads or model_threads(loaded))
        self.pool = SessionPool(loaded, settings, self.steps, self.metrics)
        self.caretaker = Caretaker(self.pool)
        self.decoders = Decoders(settings.decoders, settings.limits, self.metrics)
        self.sources = Sources(self.pool, self.decoders, settings.cameras)
        self.requests = Limiter(settings.limits.requests_per_s)
        self.frames = Limiter(settings.limits.frames_per_s)
        self.num_saved = 0
        """Sessions that were open and safe when the server stopped."""
        self._watch: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Look after sessions until the block ends, then save them all and stop."""
        self._watch = asyncio.create_task(self._look_after())
        try:
            yield
        finally:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
            await self.stop()

    @property
    def health(self) -> str:
        """ok; draining: the server stops; failing: sessions are no longer looked after (a defect)."""
        if self.pool.is_draining:
            return "draining"
        return "ok" if self._watch is not None and not self._watch.done() else "failing"

    async def stop(self) -> None:
        """Save every open session; nothing is served afterwards."""
        self.pool.is_draining = True
        await self.sources.stop_all()
        lost = await self.caretaker.drain()
        self.num_saved = len(self.pool.open) - len(lost)
        log.info("stopped: %d sessions saved, %d could not be saved", self.num_saved, len(lost))
        await self.decoders.close()
        await asyncio.to_thread(self.pool.shutdown)

    async def _look_after(self) -> None:
        period = min(_ROUND_S, self.settings.snapshot_s / 2, self.settings.idle_s / 2)
        trimmed_at, num_done = time.monotonic(), 0
        while True:
            await asyncio.sleep(period)
            await self.caretaker.look_after()
            if time.monotonic() - trimmed_at >= _HEAP_S and self.steps.num_done != num_done:
                trimmed_at, num_done = time.monotonic(), self.steps.num_done
                await asyncio.to_thread(heap.give_back)

    def gauges(self) -> None:
        """Bring the gauges up to date."""
        metrics, pool = self.metrics, self.pool
        metrics.sessions.labels("open").set(len(pool.open))
        metrics.sessions.labels("asleep").set(len(pool.asleep))
        metrics.promised_bytes.set(pool.ledger.promised)
        metrics.engine_bytes.set(pool.ledger.aside)
        metrics.budget_bytes.set(pool.ledger.total)
        metrics.state_bytes.set(pool.state_bytes())
        metrics.timeline_bytes.set(sum(h.record.timeline.num_bytes for h in pool.open.values()))
        metrics.heap_live_bytes.set(heap.live_bytes() or 0)
        metrics.steps_waiting.set(self.steps.waiting)


def model_threads(loaded: LoadedModel) -> int:
    """Model steps at the same time: one on a GPU; on a CPU one per core, each on one core."""
    if loaded.model.device.type != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(1)
    return max(1, cores or 1)
