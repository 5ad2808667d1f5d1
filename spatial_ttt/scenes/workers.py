"""Tasks shared out to processes: progress as it happens, a clean end on Ctrl-C, death noticed.

Workers are spawned, not forked: an OpenGL context does not survive a fork. They ignore Ctrl-C; the
parent gets it and ends them. A worker whose parent is gone ends by itself.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from spatial_ttt.errors import ConfigError, DataError, SpatialTTTError

T = TypeVar("T")
Step = Callable[[str], None]
"""Called by a task with a few words each time one unit of its work is done."""
Work = Callable[[Any, Step], None]

_POLL_S = 0.2


def run_tasks(tasks: Sequence[Any], work: Work, *, workers: int, on_step: Step) -> None:
    """Call `work(task, step)` for every task in up to `workers` processes.

    `on_step` hears every step of every task, in this process. Raises what a task raised; on any
    error or Ctrl-C all workers are ended and their unfinished files are for the caller to remove.
    """
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}")
    if not tasks:
        return
    context = multiprocessing.get_context("spawn")
    todo: Any = context.Queue()
    messages: Any = context.Queue()
    for task in tasks:
        todo.put(task)
    count = min(workers, len(tasks))
    threads = max(1, (os.cpu_count() or 1) // count)
    with _started(context, count, (work, todo, messages, threads)) as processes:
        finished = 0
        while finished < len(tasks):
            kind, text = _next_message(messages, processes)
            if kind == "error":
                raise DataError(text)
            finished += kind == "task"
            if kind == "step":
                on_step(text)
        for _ in processes:
            todo.put(None)
        for process in processes:
            process.join()


@contextlib.contextmanager
def _started(context: Any, count: int, arguments: tuple[Any, ...]) -> Iterator[list[BaseProcess]]:
    """`count` running workers; ended when the block ends, however it ends."""
    processes: list[BaseProcess] = [
        context.Process(target=_serve, args=arguments, daemon=True) for _ in range(count)
    ]
    try:
        with _interrupts_ignored():
            for process in processes:
                process.start()
        yield processes
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
        for process in processes:
            if process.pid is not None:
                process.join()


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Children started in here ignore Ctrl-C from their first instruction on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _next_message(messages: Any, processes: list[BaseProcess]) -> tuple[str, str]:
    while True:
        try:
            message: tuple[str, str] = messages.get(timeout=_POLL_S)
        except queue.Empty:
            for process in processes:
                if process.exitcode is not None:
                    raise DataError(
                        f"a worker ended unexpectedly (exit code {process.exitcode}); whole shards "
                        "are kept: run the same command again to go on, with fewer workers if "
                        "memory ran out"
                    ) from None
            continue
        return message


def _serve(work: Work, todo: Any, messages: Any, threads: int) -> None:
    """What a worker does: task after task until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING)
    os.environ["LP_NUM_THREADS"] = str(threads)  # llvmpipe's: workers share the processors
    os.environ["OMP_NUM_THREADS"] = str(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while (task := todo.get()) is not None:
        try:
            work(task, lambda text: messages.put(("step", text)))
        except SpatialTTTError as error:
            messages.put(("error", str(error)))
            return
        messages.put(("task", ""))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
