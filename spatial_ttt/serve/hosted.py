"""One session on the server: frames in order and once, questions at any moment, saves in between.

A frame is handled whole or not at all: a client that dies in the middle changes nothing, and what is
saved is always the memory together with the number of the next frame.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from spatial_ttt.errors import VideoError
from spatial_ttt.generate import Decoding
from spatial_ttt.serve.ack import Ack, Answer, Listener, Status
from spatial_ttt.serve.clock import MendingClock, StrictClock
from spatial_ttt.serve.memory_note import observe
from spatial_ttt.serve.problems import Problem
from spatial_ttt.serve.records import SessionRecord
from spatial_ttt.serve.steps import ModelSteps, unbroken
from spatial_ttt.serve.timeline import MemoryNote
from spatial_ttt.session import StreamingSession
from spatial_ttt.stream_state import StreamState
from spatial_ttt.video.frame import Frame, Pixels


class HostedSession:
    """A streaming session, its record, and the order of events."""

    def __init__(self, record: SessionRecord, session: StreamingSession, steps: ModelSteps) -> None:
        self.record = record
        self.session = session
        self.last_used = time.monotonic()
        self.last_save = float("-inf")
        """On the steady clock: a wall clock that jumps neither stops nor hastens saving."""
        self.last_frame: Pixels | None = None
        self.users = 0
        """Requests and connections that hold on to it now."""
        self.feeder: str | None = None
        """What the server itself feeds the session from, while it does."""
        self.warning: str | None = None
        """Why the latest save failed, if it did."""
        self._clock = MendingClock(record.clock_state) if record.clock == "mend" else StrictClock()
        self._steps = steps
        self._feeding = asyncio.Lock()
        self._saving = asyncio.Lock()
        self._anchor: tuple[float, float] | None = None  # (steady clock, stream) s of an arrival
        self._listeners: set[Listener] = set()
        self._closed = False

    @property
    def seen(self) -> int:
        """The last frame id handled."""
        return self.record.next_id - 1

    @property
    def is_dirty(self) -> bool:
        """Whether a crash now would lose something."""
        return self.record.saved_at is None or self.record.saved_id != self.seen

    def touch(self) -> None:
        """Somebody uses it."""
        self.last_used = time.monotonic()

    @contextmanager
    def in_use(self) -> Iterator[HostedSession]:
        """Stays in memory for as long as the block lasts."""
        self.users += 1
        self.touch()
        try:
            yield self
        finally:
            self.users -= 1
            self.touch()

    async def watch(
        self, frame_id: int, sent: float | None, load: Callable[[], Awaitable[Pixels]]
    ) -> Ack:
        """Watch frame `frame_id`, whose pixels `load` gives; once, however often it is sent.

        `sent` is the frame's time in seconds since the stream began; None takes the time of arrival.
        Raises a 409 Problem for a frame that leaves a gap, and BudgetError where the session is full; then
        the frame may be sent again. A frame that cannot be watched is refused and left out.
        """
        self.touch()
        return await unbroken(
            self._watch(frame_id, self._arrival() if sent is None else sent, load)
        )

    async def watch_next(self, frame: Frame) -> Ack:
        """Watch a frame that the server itself has, under the next free id."""

        async def load() -> Pixels:
            return frame.pixels

        self.touch()
        return await unbroken(self._watch(None, frame.time, load))

    def _arrival(self) -> float:
        """Seconds of stream now, on this machine's steady clock; time asleep does not count."""
        now = time.monotonic()
        if self._anchor is None:
            self._anchor = (now, self.record.seconds_seen)
        return self._anchor[1] + now - self._anchor[0]

    async def _watch(
        self, wanted_id: int | None, sent: float, load: Callable[[], Awaitable[Pixels]]
    ) -> Ack:
        async with self._feeding:
            record = self.record
            frame_id = record.next_id if wanted_id is None else wanted_id
            if frame_id < record.next_id:
                return self._ack(frame_id, "duplicate")
            if frame_id > record.next_id:
                raise Problem(
                    409,
                    "gap",
                    f"frame {frame_id} came where {record.next_id} was expected; send frames "
                    f"{record.next_id} to {frame_id - 1} again, or declare them lost with skip",
                    expected=record.next_id,
                    missing=[record.next_id, frame_id - 1],
                )
            try:
                with self._clock_kept():
                    pixels = await load()
                    frame = Frame(pixels, self._clock.time(sent))
                    note = await self._steps.run(observe, self.session, frame)
            except VideoError as error:
                record.next_id += 1
                record.refused += 1
                return self._ack(frame_id, "refused", error=str(error))
            self._advance(frame, note)
            return self._ack(frame_id, "watched", note=note)

    @contextmanager
    def _clock_kept(self) -> Iterator[None]:
        """Only a frame that was watched moves the clock, whatever went wrong with another."""
        before, done = self._clock.state, False
        try:
            yield
            done = True
        finally:
            if not done:
                self._clock.state = before

    def _advance(self, frame: Frame, note: MemoryNote | None) -> None:
        record = self.record
        record.next_id += 1
        record.num_frames += 1
        record.seconds_seen = frame.time
        record.clock_state = self._clock.state
        self.last_frame = frame.pixels
        if note is not None:
            record.timeline.append(note)
            self.tell({"type": "slot", "note": note.to_json(), "seen": self.seen})

    def _ack(
        self,
        frame_id: int,
        status: Status,
        error: str | None = None,
        note: MemoryNote | None = None,
    ) -> Ack:
        slots = 0 if self._closed else self.session.state.num_slots
        return Ack(frame_id, status, self.seen, self.record.saved_id, slots, error, note)

    async def skip(self, to: int) -> Ack:
        """Declare frames lost: `to` is the next id that will come. Going back is no skip."""
        self.touch()
        async with self._feeding:
            if to > self.record.next_id:
                self.record.skipped += to - self.record.next_id
                self.record.next_id = to
            return self._ack(to - 1, "skipped")

    async def ask(self, question: str, decoding: Decoding) -> Answer:
        """Begin an answer about everything seen so far; raises SessionError for an empty question."""
        self.touch()
        async with self._feeding:  # whole frames only, and the id of the last one
            pieces = self.session.ask(question, decoding)
            seen, seconds = self.seen, self.record.seconds_seen
        return Answer(self._steps.iterate(pieces), seen, seconds)

    async def capture(self) -> tuple[SessionRecord, StreamState]:
        """The record and the memory of one moment, neither of which changes afterwards."""
        async with self._feeding:
            return self.record.copy(), self.session.state

    async def fork(self, record: SessionRecord) -> HostedSession:
        """A second session that has seen the same; `record` gets this one's place in the stream."""
        async with self._feeding:
            own = self.record
            record.next_id, record.refused, record.skipped = own.next_id, own.refused, own.skipped
            record.num_frames, record.seconds_seen = own.num_frames, own.seconds_seen
            record.clock, record.clock_state = own.clock, own.clock_state
            record.walk, record.timeline = own.walk, own.timeline.copy()
            twin = HostedSession(record, self.session.fork(), self._steps)
            twin.last_frame = self.last_frame
            return twin

    async def save(self, write: Callable[[SessionRecord, StreamState], Awaitable[None]]) -> None:
        """Save by `write`, unless nothing changed; one save at a time."""
        async with self._saving:
            if not self.is_dirty or self._closed:
                return
            record, state = await self.capture()
            record.saved_id = record.next_id - 1
            record.saved_at = time.time()
            await write(record, state)
            self.record.file = record.file
            self.record.saved_id, self.record.saved_at = record.saved_id, record.saved_at
            self.last_save = time.monotonic()
            self.warning = None
            self.tell({"type": "saved", "saved": record.saved_id})

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Hear of slots, saves and sources; returns what ends it."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    def tell(self, event: dict[str, Any]) -> None:
        """Let everybody who listens know."""
        for listener in tuple(self._listeners):
            listener(event)

    def figures(self) -> dict[str, Any]:
        """What the session holds and has cost, for JSON."""
        stats = self.session.stats()
        seconds = {name: round(value, 4) for name, value in asdict(stats.timings).items()}
        return {
            "num_slots": stats.num_slots,
            "num_tokens": stats.num_tokens,
            "ttt_bytes": stats.ttt_bytes,
            "anchor_bytes": stats.anchor_bytes,
            "state_bytes": stats.state_bytes,
            "seconds": seconds,
        }

    async def retire(self, let_go: Callable[[SessionRecord], None]) -> bool:
        """Let the memory go if nobody uses it and all of it is saved; whether it did.

        `let_go` gets the record as it was saved and takes the session off every list. Nothing comes in
        between: who had the session in hand before keeps it from retiring, and nobody meets it closed.
        """
        async with self._saving, self._feeding:
            if self.users or self.feeder or self.is_dirty or self._closed:
                return False
            self._closed = True
            self.session.close()
            let_go(self.record.copy())
            return True

    async def close(self) -> None:
        """Forget the memory; waits for the frame in hand and for a save."""
        async with self._saving, self._feeding:
            self._closed = True
            self.session.close()
