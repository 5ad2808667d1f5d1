"""Model work off the event loop: a bounded number of threads, first come, first served."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")
P = ParamSpec("P")


class ModelSteps:
    """Threads for the model's work. One piece of work is short: a frame, or one token of an answer."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="model")
        self.waiting = 0
        """Pieces of work begun or queued."""
        self.num_done = 0

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`work(...)` in a thread. A caller that is cancelled does not stop what has begun."""
        loop = asyncio.get_running_loop()
        self.waiting += 1
        future = loop.run_in_executor(self._threads, lambda: work(*args, **kwargs))
        future.add_done_callback(self._done)
        return await asyncio.shield(future)

    def _done(self, future: asyncio.Future[Any]) -> None:
        self.waiting -= 1
        self.num_done += 1
        if not future.cancelled():
            future.exception()  # seen: the caller may be gone

    async def iterate(self, items: Iterator[T]) -> AsyncGenerator[T, None]:
        """The items of a generator, each made in a thread when it is wanted; closed with the caller."""
        last: asyncio.Task[T | None] | None = None
        try:
            while True:
                last = asyncio.ensure_future(self.run(next, items, None))
                item = await asyncio.shield(last)
                if item is None:
                    return
                yield item
        finally:
            background(self._close(items, last))

    async def _close(self, items: Iterator[Any], last: asyncio.Task[Any] | None) -> None:
        if last is not None:  # a generator that runs cannot be closed
            await asyncio.wait([last])
            if not last.cancelled():
                last.exception()
        close = getattr(items, "close", None)
        if close is not None:
            await self.run(close)

    def shutdown(self) -> None:
        """Wait for what runs; nothing more is accepted."""
        self._threads.shutdown(wait=True, cancel_futures=True)


_BACKGROUND: set[asyncio.Task[Any]] = set()


def background(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run a coroutine to its end, whatever becomes of the caller."""
    task = asyncio.ensure_future(work)
    _BACKGROUND.add(task)
    task.add_done_callback(_finished)
    return task


def _finished(task: asyncio.Task[Any]) -> None:
    _BACKGROUND.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.debug("work whose caller may be gone ended with: %s", error)


async def unbroken(work: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine that goes on to its end even if the caller is cancelled."""
    return await asyncio.shield(background(work))
