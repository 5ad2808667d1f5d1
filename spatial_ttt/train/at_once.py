"""Many commands at once, each in a process group and with a log of its own; none can end another.

Whoever starts them waits here: a progress line now and then, a word with the end of the log for each that
failed, and all of them ended where this process is asked to end.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

log = logging.getLogger(__name__)

LINE_EVERY = 15.0  # seconds
LOOK_EVERY = 0.2  # seconds
GRACE = 15.0  # seconds between asking a process to end and ending it
TAIL = 12  # lines of a log that are shown


@dataclass(frozen=True, slots=True)
class Job:
    """A command to run; its output goes to `log`."""

    name: str
    command: tuple[str, ...]
    log: Path


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job ended."""

    job: Job
    code: int
    seconds: float


@dataclass(slots=True)
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    slot: int
    began: float

    def ask(self, number: signal.Signals) -> None:
        """Send a signal to the process and all it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


class AtOnce:
    """Runs jobs on slots; a slot is what is added to a process's environment."""

    def __init__(
        self,
        slots: Sequence[Mapping[str, str]],
        ended: Callable[[Ended], None],
        describe: Callable[[Job], str],
        limit: float = 0.0,
    ) -> None:
        """`describe` says in a word how far a job is; `limit` ends everything after so many seconds (0: never)."""
        self.slots, self.ended, self.describe, self.limit = slots, ended, describe, limit
        self.running: list[_Running] = []
        self.asked: int = 0

    def run(self, jobs: Sequence[Job]) -> bool:
        """All jobs, the first ones first; False where it was asked to end before they all had ended."""
        waiting, began, line = list(jobs), time.monotonic(), time.monotonic()
        with self._ending_all():
            while waiting or self.running:
                self._start(waiting)
                time.sleep(LOOK_EVERY)
                self._collect()
                now = time.monotonic()
                if self.asked or (self.limit and now - began > self.limit):
                    why = signal.Signals(self.asked).name if self.asked else "the time is up"
                    log.error("%s: ending %d runs", why, len(self.running))
                    return False
                if now - line > LINE_EVERY:
                    line = now
                    self._tell(len(waiting), now - began)
        return True

    def _start(self, waiting: list[Job]) -> None:
        taken = {one.slot for one in self.running}
        for slot in range(len(self.slots)):
            if slot in taken or not waiting:
                continue
            job = waiting.pop(0)
            job.log.parent.mkdir(parents=True, exist_ok=True)
            with job.log.open("wb") as output:
                process = subprocess.Popen(
                    job.command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=os.environ | dict(self.slots[slot]),
                    process_group=0,  # Ctrl-C is ours to pass on
                )
            self.running.append(_Running(job, process, slot, time.monotonic()))

    def _collect(self) -> None:
        for one in list(self.running):
            code = one.process.poll()
            if code is None:
                continue
            self.running.remove(one)
            one.ask(signal.SIGKILL)  # what it may have left behind
            if code:
                log.error(
                    "%s ended with %d; %s ends:\n%s",
                    one.job.name,
                    code,
                    one.job.log,
                    tail(one.job.log),
                )
            self.ended(Ended(one.job, code, time.monotonic() - one.began))

    def _tell(self, waiting: int, seconds: float) -> None:
        states = ", ".join(f"{one.job.name} {self.describe(one.job)}" for one in self.running)
        log.info("%.0f s, %d running, %d waiting: %s", seconds, len(self.running), waiting, states)

    @contextmanager
    def _ending_all(self) -> Iterator[None]:
        """Whatever happens, nothing goes on running."""

        def note(number: int, _frame: FrameType | None) -> None:
            self.asked = number

        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, note) for number in numbers}
        try:
            yield
        finally:
            self._end_all()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end_all(self) -> None:
        for one in self.running:
            one.ask(signal.SIGTERM)
        ends = time.monotonic() + GRACE
        for one in self.running:
            try:
                one.process.wait(timeout=max(0.0, ends - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.error("%s did not end when asked to", one.job.name)
            one.ask(signal.SIGKILL)
            one.process.wait()
        self.running.clear()


def tail(path: Path, lines: int = TAIL) -> str:
    """The last lines of a log."""
    text = path.read_text(errors="replace") if path.exists() else ""
    return "\n".join("    " + line for line in text.splitlines()[-lines:]) or "    (nothing)"


def slots(at_once: int, gpus: Sequence[str], cores: int) -> list[dict[str, str]]:
    """Environments of so many processes, dealt out to the GPUs in turn, one thread of sums each."""
    compilers = str(max(1, min(4, cores // max(1, at_once))))
    common = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    common |= {"TORCHINDUCTOR_COMPILE_THREADS": compilers}
    if not gpus:
        return [dict(common) for _ in range(at_once)]
    return [common | {"CUDA_VISIBLE_DEVICES": gpus[n % len(gpus)]} for n in range(at_once)]


def visible_gpus() -> list[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return named[:count] if named else [str(number) for number in range(count)]


def append_line(path: Path, text: str) -> None:
    """Add a line to a file in one write, so that lines of several writers never mix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        file.write(text.encode() + b"\n")
