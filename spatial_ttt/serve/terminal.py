"""`spatial-ttt connect`: a server's session from the terminal, watching and asking at the same time."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TextIO

from spatial_ttt.errors import DataError, SessionError, SpatialTTTError
from spatial_ttt.serve.client import RemoteSession
from spatial_ttt.serve.rerun_log import RerunLog
from spatial_ttt.video import Frame, open_source

_COMMANDS = ":fork  :keep  :save  :stats  :list  :quit"


@dataclass(frozen=True, slots=True)
class Console:
    """How questions come and answers go."""

    lines: TextIO
    max_new_tokens: int
    log: RerunLog | None = None


def connect(session: RemoteSession, console: Console, feeder: Feeder | None) -> None:
    """Answer the console's lines until they end, while frames flow into the session.

    Lines of a program rather than a person wait until the source is over.
    """
    lines = console.lines
    stats = session.stats()
    seen = f"{stats['num_frames']} frames, {stats['seconds_seen']:.1f} s seen"
    _say(f"session {session.session_id}: {seen}")
    if lines.isatty():
        _say(f"type a question; {_COMMANDS}")
    elif feeder is not None:
        feeder.wait()
    try:
        for line in lines:
            if text := line.strip():
                if text == ":quit":
                    return
                session = _obey(session, text, console)
        if feeder is not None:
            feeder.wait()
    finally:
        if feeder is not None:
            feeder.stop()


def _obey(session: RemoteSession, text: str, console: Console) -> RemoteSession:
    """A command or a question; the session to go on with."""
    if text == ":fork":
        session = session.fork()
        _say(f"now in session {session.session_id}")
    elif text == ":keep":
        _say(f"snapshot {session.snapshot()}")
    elif text == ":save":
        _say(f"safe to frame {session.save()['saved']}")
    elif text == ":stats":
        for key, value in _flat(session.stats()):
            _say(f"{key:18s} {value}")
    elif text == ":list":
        for item in session.server.sessions():
            _say(f"{item['id']} {item['state']:6s} {item['num_frames']:6d} frames {item['name']}")
    elif text.startswith(":"):
        _say(f"no command {text}; there are {_COMMANDS}")
    else:
        _answer(session, text, console)
    return session


def _flat(stats: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values for people: bytes and times in units, nested tables line by line."""
    for key, value in stats.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{name}", text) for name, text in _flat(value))
        elif value is None or value == "":
            continue
        elif key.endswith("_bytes"):
            yield key, f"{value / 1e6:,.1f} MB"
        elif key.endswith("_at"):
            yield key, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
        else:
            yield key, str(value)


def _answer(session: RemoteSession, question: str, console: Console) -> None:
    pieces = []
    for piece in session.ask(question, max_new_tokens=console.max_new_tokens):
        pieces.append(piece)
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    if console.log is not None:
        seconds = float(session.stats()["seconds_seen"])
        console.log.answer(question, "".join(pieces), seconds)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def open_frames(source: str, fps: float) -> Iterator[Frame]:
    """Frames of a file, folder, camera or address, or of `lerobot:FOLDER#EPISODE`."""
    if not source.startswith("lerobot:"):
        return open_source(source, fps=fps)
    from spatial_ttt.serve.lerobot import LeRobotDataset

    folder, _, episode = source.removeprefix("lerobot:").partition("#")
    if episode and not episode.isdigit():
        raise DataError(f"{source}: an episode is a number, e.g. lerobot:{folder}#0")
    return LeRobotDataset(folder).frames(int(episode or 0), fps=fps)


class Feeder:
    """Frames into a session, in a thread of its own; `log` sees them too."""

    def __init__(
        self, session: RemoteSession, frames: Iterator[Frame], log: RerunLog | None = None
    ) -> None:
        self._frames = frames
        self._session = session
        self._log = log
        self._stopped = threading.Event()
        self._error: SpatialTTTError | None = None
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            start = self._start()
            with self._session.stream(on_message=self._hear) as stream:
                for frame in self._until_stopped():
                    stream.send(frame.pixels, start + frame.time)
                    if self._log is not None:
                        self._log.frame(frame.pixels, start + frame.time)
            for first, last in stream.lost:
                _say(f"frames {first} to {last} are lost: the server stopped before they were safe")
            for frame_id, reason in stream.refused.items():
                _say(f"frame {frame_id} was left out: {reason}")
        except SpatialTTTError as error:
            self._error = error
            _say(f"the source ended: {error}")

        finally:
            close = getattr(self._frames, "close", None)
            if close is not None:
                close()

    def _hear(self, message: dict[str, Any]) -> None:
        if self._log is not None and message["type"] == "slot":
            self._log.slot(message["note"])

    def _start(self) -> float:
        """Times go on after everything the session has seen."""
        stats: dict[str, Any] = self._session.stats()
        return float(stats["seconds_seen"]) + 0.1 if stats["num_frames"] else 0.0

    def _until_stopped(self) -> Iterator[Frame]:
        for frame in self._frames:
            if self._stopped.is_set():
                return
            yield frame

    def wait(self) -> None:
        """Until the source is over; raises SessionError where it broke off."""
        self._thread.join()
        if self._error is not None:
            raise SessionError(f"not all frames were sent: {self._error}")

    def stop(self) -> None:
        """End early."""
        self._stopped.set()
        self._thread.join(timeout=30)
