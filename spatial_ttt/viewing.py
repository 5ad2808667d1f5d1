"""Joining a source of frames to a session: a file watched to its end, or a live stream with questions."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from spatial_ttt.generate import Decoding
from spatial_ttt.inference import piece_slots
from spatial_ttt.loading import LoadedModel
from spatial_ttt.model.bounded_cache import AnchorPolicy, policy_within
from spatial_ttt.session import StreamingSession
from spatial_ttt.video import Frame, open_source


def anchor_policy(loaded: LoadedModel, budget_bytes: int | None, bits: int) -> AnchorPolicy | None:
    """What the anchors keep within a byte budget; None keeps everything."""
    if budget_bytes is None:
        return None
    return policy_within(budget_bytes, loaded.model.config, loaded.model.dtype, bits=bits)


@dataclass
class Viewer:
    """A session that has watched a source, and how long reading it took."""

    session: StreamingSession
    decode_seconds: float

    def figures(self) -> dict[str, Any]:
        """What was seen and what it cost, for JSON."""
        stats = self.session.stats()
        seconds = {"decode": self.decode_seconds, **asdict(stats.timings)}
        return {
            "frames": stats.num_frames,
            "slots": stats.num_slots,
            "seconds_seen": stats.seconds_seen,
            "state_bytes": stats.state_bytes,
            "seconds": {name: round(value, 4) for name, value in seconds.items()},
        }

    def profile(self) -> str:
        """The time of each part in milliseconds, in all and per frame."""
        figures = self.figures()
        frames = max(1, figures["frames"])
        lines = [
            f"{figures['frames']} frames, {figures['slots']} slots, state {figures['state_bytes']:,} bytes"
        ]
        for name, seconds in figures["seconds"].items():
            lines.append(
                f"{name:12s} {1e3 * seconds:9.1f} ms {1e3 * seconds / frames:9.2f} ms per frame"
            )
        return "\n".join(lines)


def watch_source(
    loaded: LoadedModel,
    spec: Any,
    *,
    fps: float | None = None,
    num_frames: int | None = None,
    anchors: AnchorPolicy | None = None,
) -> Viewer:
    """Watch a source to its end, with a progress line on a terminal's stderr."""
    viewer = Viewer(_session(loaded, anchors), 0.0)
    with _shown(spec, viewer, fps, num_frames) as frames:
        viewer.session.observe(frames)
    return viewer


def answer_source(
    loaded: LoadedModel,
    spec: Any,
    question: str,
    decoding: Decoding,
    *,
    fps: float | None = None,
    num_frames: int | None = None,
    anchors: AnchorPolicy | None = None,
) -> tuple[Viewer, Iterator[str]]:
    """As `watch_source`, with the one question about it: sooner answered than by its session."""
    viewer = Viewer(_session(loaded, anchors), 0.0)
    with _shown(spec, viewer, fps, num_frames) as frames:
        return viewer, viewer.session.finish(frames, question, decoding)


def _session(loaded: LoadedModel, anchors: AnchorPolicy | None) -> StreamingSession:
    slots = piece_slots(loaded.model.device)
    return StreamingSession(loaded.model, loaded.processor, slots_per_piece=slots, anchors=anchors)


@contextmanager
def _shown(
    spec: Any, viewer: Viewer, fps: float | None, num_frames: int | None
) -> Iterator[Iterator[Frame]]:
    """A source's frames, counted in a progress line."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with (
        open_source(spec, fps=fps, num_frames=num_frames) as source,
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task("watching")

        def shown() -> Iterator[Frame]:
            for count, frame in enumerate(_timed(source, viewer), start=1):
                bar.update(task, description=f"watching: {count} frames, {frame.time:.1f} s")
                yield frame

        yield shown()


def _timed(source: Iterable[Frame], viewer: Viewer) -> Iterator[Frame]:
    frames = iter(source)
    while True:
        started = time.perf_counter()
        frame = next(frames, None)
        viewer.decode_seconds += time.perf_counter() - started
        if frame is None:
            return
        yield frame


def watch_live(
    loaded: LoadedModel,
    spec: Any,
    *,
    fps: float,
    decoding: Decoding,
    say: Callable[[Iterator[str]], None],
    anchors: AnchorPolicy | None = None,
) -> None:
    """Watch until the source or the input ends; questions typed on stdin are answered at once."""
    questions: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read_questions, args=(questions,), daemon=True).start()
    on_gpu = loaded.model.device.type == "cuda"  # there slots are replayed as graphs
    with (
        StreamingSession(loaded.model, loaded.processor, anchors=anchors, steady=on_gpu) as session,
        open_source(spec, fps=fps) as source,
    ):
        line = _StatusLine(session)
        for frame in source:
            session.observe([frame])
            line.show()
            if not _answer_waiting(session, questions, decoding, say):
                return
        line.show(now=True)
        # The source is over; its memory can still be asked.
        while (question := questions.get()) is not None:
            say(session.ask(question, decoding))


def _read_questions(questions: queue.Queue[str | None]) -> None:
    for line in sys.stdin:
        if not line.strip():
            break
        questions.put(line.strip())
    questions.put(None)


def _answer_waiting(
    session: StreamingSession,
    questions: queue.Queue[str | None],
    decoding: Decoding,
    say: Callable[[Iterator[str]], None],
) -> bool:
    """Answer what was typed; False when the input is over."""
    while not questions.empty():
        question = questions.get()
        if question is None:
            return False
        say(session.ask(question, decoding))
    return True


class _StatusLine:
    """Slots seen, frames per second and bytes of state, twice a second on stderr."""

    def __init__(self, session: StreamingSession) -> None:
        self.session = session
        self.started = self.last = time.perf_counter()

    def show(self, *, now: bool = False) -> None:
        clock = time.perf_counter()
        if not now and clock - self.last < 0.5:
            return
        self.last = clock
        stats = self.session.stats()
        rate = stats.num_frames / max(clock - self.started, 1e-9)
        end = "\r" if sys.stderr.isatty() and not now else "\n"
        sys.stderr.write(
            f"{stats.num_slots} slots, {stats.seconds_seen:.1f} s seen, {rate:.1f} frames/s, "
            f"{stats.state_bytes:,} bytes of state{end}"
        )
        sys.stderr.flush()
