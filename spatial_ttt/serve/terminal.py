"""`spatial-ttt connect`: a server's session from the terminal, watching and asking at the same time."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO

from spatial_ttt.errors import SessionError, SpatialTTTError
from spatial_ttt.serve.client import RemoteSession

_COMMANDS = ":fork  :keep  :save  :stats  :list  :quit"


def connect(
    session: RemoteSession, lines: TextIO, feeder: Feeder | None, max_new_tokens: int
) -> None:
    """Answer the questions in `lines` until they end, while frames flow into the session.

    Lines of a program rather than a person wait until the source is over.
    """
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
                session = _obey(session, text, max_new_tokens)
        if feeder is not None:
            feeder.wait()
    finally:
        if feeder is not None:
            feeder.stop()


def _obey(session: RemoteSession, text: str, max_new_tokens: int) -> RemoteSession:
    """A command or a question; the session to go on with."""
    if text == ":fork":
        session = session.fork()
        _say(f"now in session {session.session_id}")
    elif text == ":keep":
        _say(f"snapshot {session.snapshot()}")
    elif text == ":save":
        _say(f"safe to frame {session.save()['saved']}")
    elif text == ":stats":
        for key, value in session.stats().items():
            _say(f"{key:16s} {value}")
    elif text == ":list":
        for item in session.server.sessions():
            _say(f"{item['id']} {item['state']:6s} {item['num_frames']:6d} frames {item['name']}")
    elif text.startswith(":"):
        _say(f"no command {text}; there are {_COMMANDS}")
    else:
        for piece in session.ask(text, max_new_tokens=max_new_tokens):
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
    return session


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


class Feeder:
    """Frames of a source into a session, in a thread of its own."""

    def __init__(self, session: RemoteSession, source: str, fps: float) -> None:
        from spatial_ttt.video import open_source

        self._frames = open_source(source, fps=fps)
        self._session = session
        self._stopped = threading.Event()
        self._error: SpatialTTTError | None = None
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            start = self._start()
            with self._frames, self._session.stream() as stream:
                for frame in self._until_stopped():
                    stream.send(frame.pixels, start + frame.time)
            for first, last in stream.lost:
                _say(f"frames {first} to {last} are lost: the server stopped before they were safe")
            for frame_id, reason in stream.refused.items():
                _say(f"frame {frame_id} was left out: {reason}")
        except SpatialTTTError as error:
            self._error = error
            _say(f"the source ended: {error}")

    def _start(self) -> float:
        """Times go on after everything the session has seen."""
        stats: dict[str, Any] = self._session.stats()
        return float(stats["seconds_seen"]) + 0.1 if stats["num_frames"] else 0.0

    def _until_stopped(self) -> Iterator[Any]:
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
