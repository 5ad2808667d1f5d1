"""One viewer's stream: watch frames, answer questions at any moment, in memory that does not grow.

    session = StreamingSession(model, processor)
    session.observe(frames)                     # as many times as frames come
    for piece in session.ask("How many chairs?"):
        ...

`ask` works on a fork: the stream goes on as if nobody had asked. A session is OPEN until `close`. The one question
about a recording is answered sooner by `finish(frames, question)`, which ends the stream.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch

from spatial_ttt.errors import BudgetError, SessionClosed, SessionError
from spatial_ttt.generate import Decoding, generate
from spatial_ttt.inference import last_slots
from spatial_ttt.loans import Loan, check_question, give_back, keep
from spatial_ttt.model.bounded_cache import AnchorPolicy
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.state import DecoderState
from spatial_ttt.pieces import PieceMaker
from spatial_ttt.processor import Processor
from spatial_ttt.questions import Piece, asked, end_video, finish, read_question
from spatial_ttt.snapshot import load_snapshot, save_snapshot
from spatial_ttt.steady_stream import SharedStream, open_stream
from spatial_ttt.stopwatch import Stopwatch
from spatial_ttt.stream_state import SessionStats, StreamState
from spatial_ttt.video.frame import Frame


class StreamingSession:
    """A stream, its memory, and the questions asked of it.

    `slots_per_piece` slots are encoded and decoded together when that many are at hand; any value
    gives the same answers. `anchors` bounds what the anchors keep (None: everything). `max_bytes`
    refuses frames that would grow the state beyond it.

    `steady` watches with captured work that writes over the state (see `model.steady`): the same answers, faster
    on a GPU once pieces repeat. The state is copied out when it is asked for (`state`, `fork`, `snapshot`),
    once per moment, and for an answer under way when the next piece comes. A piece that fails leaves any
    session as it was, with one exception: where it fails half-way through a steady decoder (the device's
    memory is full) and nobody had the state copied out since the last piece, the session is lost.
    SessionError says so, then and at every later use but `close`.
    With `max_bytes` the state is copied out before each piece, so a refused piece is always undone. Many sessions may
    share one engine (`steady_stream.SharedStream`): then it is copied out after each piece, and nothing is ever lost.
    """

    def __init__(
        self,
        model: SpatialTTTForConditionalGeneration,
        processor: Processor,
        *,
        slots_per_piece: int = 4,
        max_bytes: int | None = None,
        anchors: AnchorPolicy | None = None,
        steady: bool | SharedStream = False,
    ) -> None:
        self.model = model
        self.processor = processor
        self.slots_per_piece = slots_per_piece
        self.max_bytes = max_bytes
        self.anchors = anchors
        self._clock = Stopwatch(model.device)
        self._pieces = PieceMaker(processor, model.device, model.dtype, self._clock)
        self._state = StreamState(model.decoder.start(anchors), None, None, None, 0, 0)
        self._steady = open_stream(model, steady)
        self._lock = threading.Lock()
        self._watching = threading.Lock()
        self._is_closed = self._is_over = False
        self._loans: WeakSet[Loan] = WeakSet()

    @property
    def state(self) -> StreamState:
        """The stream's state now; immutable, whatever comes later."""
        steady = self._steady
        if steady is None:
            return self._seen
        with self._lock:
            state = self._seen
            decoder = steady.settle(state.decoder)
            if decoder is not state.decoder:
                self._state = state._replace(decoder=decoder)
            return self._state

    @property
    def _seen(self) -> StreamState:
        """The same without a copy: of a steady session's decoder only a view."""
        self._check_open()
        return self._state

    def observe(self, frames: Iterable[Frame]) -> int:
        """Watch more frames; returns how many slots were completed.

        Raises VideoError for a frame that is no picture, of another size, or earlier than the last;
        frames before it have been watched. Raises BudgetError where the state would outgrow `max_bytes`;
        then the frames of the last piece (`slots_per_piece`) have not been watched. What is asked,
        forked or saved in the meantime sees whole pieces: never a later frame without an earlier one.
        """
        with self._watched_alone():
            before = self._seen.num_slots
            self._watch_all(frames)
        return self._state.num_slots - before

    @contextmanager
    def _watched_alone(self) -> Iterator[None]:
        if not self._watching.acquire(blocking=False):
            raise SessionError(
                "frames are being watched already; give one session its frames from one place at a time"
            )
        try:
            yield
        finally:
            self._watching.release()

    def _watch_all(self, frames: Iterable[Frame]) -> None:
        ahead = self._seen  # with the frames that were accepted but not pushed yet
        slots: list[tuple[Frame, Frame]] = []
        try:
            for frame in frames:
                ahead, pair = ahead.with_frame(frame)
                slots.extend([pair] if pair else [])
                if len(slots) == self.slots_per_piece:
                    ready, slots = slots, []
                    # Should the push fail, none of the piece's frames count as watched.
                    whole, ahead = ahead, self._state
                    ahead = self._watch(whole, ready)
        finally:
            self._watch(ahead, slots)

    def _watch(self, ahead: StreamState, slots: list[tuple[Frame, Frame]]) -> StreamState:
        """Push slots and make `ahead`, the state that counts their frames, the session's own."""
        with self._lock, torch.no_grad():
            past = decoder = self._seen.decoder
            if self._steady is not None and self.max_bytes is not None:
                past = decoder = self._steady.settle(past)  # the way back
                self._state = self._state._replace(decoder=past)
            if slots:
                decoder = self._advance(past, slots)
            if self.max_bytes is not None and decoder.num_bytes > self.max_bytes:
                give_back(decoder, past)
                raise BudgetError(
                    f"the state would grow to {decoder.num_bytes} bytes, the budget is {self.max_bytes}; "
                    f"snapshot and close the session, or raise the budget"
                )
            self._state = ahead._replace(decoder=decoder, num_slots=ahead.num_slots + len(slots))
            return self._state

    def _advance(self, past: DecoderState, slots: list[tuple[Frame, Frame]]) -> DecoderState:
        """The decoder's state after these slots; of a steady session a view."""
        piece = self._piece(past, slots)
        with self._clock.part("decoder"):
            if self._steady is not None:
                loans = list(self._loans)
                keep(loans, self._steady.places() if loans else set())
                return self._steady.push(past, *piece)
            return self.model.decode_piece(*piece, past, wanted=0)[1]

    def _piece(
        self, past: DecoderState, slots: list[tuple[Frame, Frame]], tail: tuple[int, ...] = ()
    ) -> Piece:
        """What is pushed on `past` for these slots; with `tail` ids the video ends and they follow."""
        encode = (self._steady or self.model).encode
        return self._pieces.make(encode, past.num_tokens == 0, slots, tail)

    def ask(self, question: str, decoding: Decoding | None = None) -> Iterator[str]:
        """Answer about everything seen so far, as pieces of text; the stream is left untouched.

        The question is answered as of the call, however many frames come while the pieces are read.
        """
        loan, decoding = self._lend(), decoding or Decoding()
        check_question(question)
        return self._answer(loan, partial(self._read, loan, question, decoding), decoding)

    def finish(
        self, frames: Iterable[Frame], question: str, decoding: Decoding | None = None
    ) -> Iterator[str]:
        """Watch the last frames of a recording and answer the one question about it, as `observe` and `ask` would.

        It is faster: the last piece, the end and the question go through the model together. The stream is over with
        it: only `stats` and `close` work then. Raises as they do; then it goes on, and frames of the last piece have
        not been watched.
        """
        check_question(question)
        decoding = decoding or Decoding()
        with self._watched_alone():
            rest = self._watch_but_last(frames)
            if not rest or self._steady is not None or self.max_bytes is not None:
                self._watch_all(rest)
                answer = self.ask(question, decoding)
            else:
                loan = self._lend()
                hidden = self._finish(loan, rest, question, decoding)
                answer = self._answer(loan, lambda: hidden, decoding)
            self._is_over = True
        return answer

    def _watch_but_last(self, frames: Iterable[Frame]) -> list[Frame]:
        """Watch all but the last piece; returns its frames."""
        last: deque[Frame] = deque()

        def before() -> Iterator[Frame]:
            for frame in frames:
                last.append(frame)
                if len(last) > 2 * self.slots_per_piece:
                    yield last.popleft()

        self._watch_all(before())
        rest = list(last)
        if not self._seen.num_slots:
            return rest  # the whole recording is one piece
        first = max(0, len(rest) - 2 * last_slots(self.slots_per_piece, self.model.config))
        self._watch_all(rest[:first])
        return rest[first:]

    def _finish(
        self, loan: Loan, frames: list[Frame], question: str, decoding: Decoding
    ) -> torch.Tensor:
        """Watch the last frames and read a question with them; hidden state [D] of its last token."""
        ahead, slots = loan.stream, []
        for frame in frames:
            ahead, pair = ahead.with_frame(frame)
            slots.extend([pair] if pair else [])
        tail = tuple(self.processor.question_ids(question))
        with self._lock, torch.no_grad():
            past = loan.fork
            piece = [self._piece(past, [*slots, *ahead.odd_slot], tail)]
            with self._clock.part("decoder"):
                hidden, loan.fork = finish(self.model, past, piece, decoding.max_new_tokens)
            self._state = ahead._replace(decoder=loan.fork, num_slots=ahead.num_slots + len(slots))
        return hidden

    def ask_all(
        self, questions: Sequence[str], decoding: Decoding | None = None
    ) -> list[Iterator[str]]:
        """The answers to many questions, each as `ask` gives it; the end of the video is read once for all.

        That is most of what a question costs, and memory until the answers are read or dropped.
        """
        decoding = decoding or Decoding()
        first = self._lend()
        for question in questions:
            check_question(question)
        longest = max((len(self.processor.question_ids(q)) for q in questions), default=0)
        with self._lock, torch.no_grad():
            ended, slots = first.stream.decoder, first.stream.odd_slot
            more, last = longest + decoding.max_new_tokens, None
            if slots or not ended.num_tokens:
                last = self._piece(ended, slots)
            ended = end_video(self.model, ended, more, last)
            loans = []
            for _ in questions:
                loans.append(Loan(first.stream, ended))
                self._loans.add(loans[-1])
        pairs = zip(loans, questions, strict=True)
        reads = [(loan, partial(self._read, loan, question, decoding)) for loan, question in pairs]
        return [self._answer(loan, read, decoding) for loan, read in reads]

    def _lend(self) -> Loan:
        """The state as of now, to be kept for an answer."""
        with self._lock:
            loan = Loan(self._seen)
            self._loans.add(loan)
            return loan

    def _read(self, loan: Loan, question: str, decoding: Decoding) -> torch.Tensor:
        """Read a question on a loan; hidden state [D] of its last token."""
        tail = tuple(self.processor.question_ids(question))
        past = loan.fork
        if loan.has_ended:
            piece = asked(torch.tensor([tail], device=self.model.device))
        else:
            piece = self._piece(past, loan.stream.odd_slot, tail)
        with self._clock.part("decoder"):
            hidden, loan.fork = read_question(self.model, past, piece, decoding.max_new_tokens)
        return hidden

    def _answer(
        self, loan: Loan, read: Callable[[], torch.Tensor], decoding: Decoding
    ) -> Iterator[str]:
        """Pieces of the answer that follows what `read` returns, the question's last hidden state [D]."""
        started = time.perf_counter()
        decoding = replace(decoding, stop_ids=(*decoding.stop_ids, self.processor.stop_id))
        try:
            with self._lock, torch.no_grad():
                hidden = read()
            ids: list[int] = []
            tokens, shown = None, ""
            while True:
                with self._lock, torch.no_grad():
                    # Begun with the fork as it is now: a piece may have come since the question was read.
                    tokens = tokens or generate(self.model, loan.fork, hidden, decoding)
                    try:
                        token, loan.fork = tokens.send(loan.fork if ids else None)
                    except StopIteration:
                        break
                ids.append(token)
                whole = self.processor.decode(ids)
                # A character may need several tokens: wait until it is whole.
                if len(whole) > len(shown) and not whole.endswith("\ufffd"):
                    yield whole[len(shown) :]
                    shown = whole
            rest = self.processor.decode(ids)[len(shown) :]
            if rest:
                yield rest
        finally:
            self._clock.add("answer", time.perf_counter() - started)

    def fork(self) -> StreamingSession:
        """A second session that has seen the same and goes its own way; copies nothing until it must."""
        state = self.state
        twin = StreamingSession(
            self.model,
            self.processor,
            slots_per_piece=self.slots_per_piece,
            max_bytes=self.max_bytes,
            anchors=self.anchors,
            steady=self._steady is not None and self._steady.for_fork(),
        )
        twin._state = state
        twin._lock = self._lock  # the anchors' buffers are shared until one of them appends
        return twin

    def snapshot(self, path: str | Path) -> None:
        """Save the session to one file, atomically; raises SessionClosed. Frames may come meanwhile."""
        save_snapshot(Path(path), self.state, self.model)

    @classmethod
    def restore(
        cls,
        path: str | Path,
        model: SpatialTTTForConditionalGeneration,
        processor: Processor,
        *,
        slots_per_piece: int = 4,
        max_bytes: int | None = None,
        steady: bool | SharedStream = False,
    ) -> StreamingSession:
        """Open a session where a snapshot left off, bit for bit.

        Raises CheckpointError for a damaged file or one of another model.
        """
        state = load_snapshot(Path(path), model)
        options: dict[str, Any] = {"slots_per_piece": slots_per_piece, "max_bytes": max_bytes}
        session = cls(model, processor, steady=steady, **options)
        session._state = state
        return session

    def stats(self) -> SessionStats:
        """Counts, seconds and bytes."""
        self._check_open(may_be_over=True)
        return SessionStats.of(self._state, self._clock.read())

    def close(self) -> None:
        """Forget the stream; every later call raises SessionClosed. Closing twice is fine."""
        with self._lock:
            self._is_closed = True
            self._state = StreamState(self.model.decoder.start(), None, None, None, 0, 0)
            self._steady = None

    def __enter__(self) -> StreamingSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self, *, may_be_over: bool = False) -> None:
        if self._is_closed:
            raise SessionClosed("the session is closed; open a new one or restore a snapshot")
        if self._is_over and not may_be_over:
            raise SessionClosed(
                "the recording is over and its question answered; open a new session"
            )
        steady = self._steady
        if steady is not None:
            steady.check(self._state.decoder)
