"""Tasks in real processes: all done, errors told, nothing left running."""

from __future__ import annotations

import functools
import os
import signal
import time
from pathlib import Path

import pytest

from spatial_ttt.errors import ConfigError, DataError, SceneError
from spatial_ttt.scenes.workers import run_tasks


def record(folder: Path, task: int, step) -> None:
    (folder / str(task)).write_text(str(os.getpid()))
    step(f"{task}")


def fail_on_three(task: int, step) -> None:
    if task == 3:
        raise SceneError("scene 3 has no floor")
    step("")


def die_on_two(task: int, step) -> None:
    if task == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    step("")


def show_threads(task: int, step) -> None:
    step(os.environ["LP_NUM_THREADS"])


@pytest.mark.parametrize("workers", [1, 3])
def test_every_task_is_done_once_and_heard(tmp_path, workers):
    steps: list[str] = []
    work = functools.partial(record, tmp_path)
    run_tasks(list(range(7)), work, workers=workers, on_step=steps.append)
    assert sorted(steps) == [str(n) for n in range(7)]
    pids = {path.read_text() for path in tmp_path.iterdir()}
    assert 1 <= len(pids) <= workers and str(os.getpid()) not in pids
    time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_tasks_error_reaches_the_caller_in_words():
    with pytest.raises(DataError, match="scene 3 has no floor"):
        run_tasks([1, 2, 3, 4], fail_on_three, workers=2, on_step=lambda text: None)


def test_a_killed_worker_is_noticed():
    with pytest.raises(DataError, match=r"worker ended unexpectedly \(exit code -9\)"):
        run_tasks([1, 2, 3], die_on_two, workers=1, on_step=lambda text: None)


def test_workers_share_the_processors():
    steps: list[str] = []
    run_tasks([0], show_threads, workers=8, on_step=steps.append)
    assert steps == [str(os.cpu_count())]


def test_no_tasks_and_no_workers():
    run_tasks([], fail_on_three, workers=1, on_step=lambda text: None)
    with pytest.raises(ConfigError, match="at least 1"):
        run_tasks([1], fail_on_three, workers=0, on_step=lambda text: None)
