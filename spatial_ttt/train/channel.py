"""A pipe to a process that computes: neither side ever waits for the other to listen.

Both ends of a bare pipe can block at once, each sending what the other does not read. Here the
worker has a thread that always reads and one that always writes, so the parent's `send` returns as
soon as the bytes are through and the worker computes on while its results wait to be fetched.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Any

from spatial_ttt.errors import DataError

Serve = Callable[[SimpleQueue[Any], SimpleQueue[Any]], None]
"""What a worker does with its inbox and outbox until None comes in."""


class Channel:
    """The parent's end: a worker process and the pipe to it."""

    def __init__(self, number: int, entry: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        """Starts a process that runs `entry(connection, *arguments)`; see `serve_connection`."""
        context = multiprocessing.get_context("spawn")
        self.number = number
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=entry, args=(theirs, *arguments), daemon=True)
        # A signal to the whole group is the parent's to handle: children are born with it blocked.
        # Starting the resource tracker unblocks it, so that comes first.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def send(self, message: Any) -> None:
        """Hand over a message; raises DataError if the worker is gone."""
        try:
            self.connection.send(message)
        except OSError as error:
            raise self.gone() from error

    @property
    def has_message(self) -> bool:
        """`receive` will return soon (or raise, if the worker is gone)."""
        return self.connection.poll()

    def receive(self) -> Any:
        """The worker's next message; raises DataError if the worker is gone."""
        try:
            return self.connection.recv()
        except (EOFError, OSError) as error:  # also in the middle of a message
            raise self.gone() from error

    def gone(self) -> DataError:
        """The error that says how the worker ended."""
        self.process.join(timeout=2)
        code = self.process.exitcode
        how = "by itself" if code is None or code >= 0 else f"by signal {-code}"
        return DataError(
            f"scene worker {self.number} ended {how} (exit code {code}); its traceback, if it had one, "
            "is on standard error; a kill by signal 9 usually means that memory ran out: use fewer workers"
        )

    def close(self) -> None:
        """End the worker at once: it holds nothing worth keeping."""
        self.process.kill()
        self.process.join(timeout=5)
        self.connection.close()


def serve_connection(connection: Connection, serve: Serve) -> None:
    """Run `serve` in this process between a reading and a writing thread, until the parent is gone."""
    inbox: SimpleQueue[Any] = SimpleQueue()
    outbox: SimpleQueue[Any] = SimpleQueue()
    Thread(target=_read, args=(connection, inbox), daemon=True).start()
    Thread(target=_write, args=(connection, outbox), daemon=True).start()
    serve(inbox, outbox)


def _read(connection: Connection, inbox: SimpleQueue[Any]) -> None:
    while True:
        try:
            inbox.put(connection.recv())
        except (EOFError, OSError):
            inbox.put(None)
            return


def _write(connection: Connection, outbox: SimpleQueue[Any]) -> None:
    while True:
        try:
            connection.send(outbox.get())
        except OSError:  # the parent is gone; the reader says so too
            return
