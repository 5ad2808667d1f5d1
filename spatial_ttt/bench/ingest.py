"""Watching a stream: frames go in, a decoder state comes out. Every engine hides behind `Ingest`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor

from spatial_ttt.bench.plan import FRAMES_PER_SLOT
from spatial_ttt.bench.subject import Subject
from spatial_ttt.model.bounded_cache import AnchorPolicy
from spatial_ttt.model.layout import END, Layout, join, text
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.state import DecoderState
from spatial_ttt.model.vision import VisionTokens, batch_slots, in_batches
from spatial_ttt.questions import Piece, Read, asked, finish, read_question
from spatial_ttt.steady_stream import SteadyStream


class Ingest(Protocol):
    """One stream being watched."""

    def watch(self, pieces: Iterable[Tensor]) -> None:
        """Watch pieces of whole slots, uint8 [2 S, H, W, 3] on the device, as fast as it goes."""

    def finish(self, frames: list[Tensor], words: Tensor, more: int) -> Read:
        """Watch a last piece, end the video and read a question's ids [1, L]; `more` tokens may follow.

        Its frames are given away (see `layers.taken`), as a session's are gone once the tower has seen them. The
        stream is over with it: restart.
        """

    def restart(self) -> None:
        """Begin a new stream, with all that the engine has prepared."""

    @property
    def state(self) -> DecoderState:
        """What the stream has left behind so far; a fork of it leaves the stream untouched."""

    @property
    def view(self) -> DecoderState:
        """The same without a copy, good until the next push."""


class _Pieces:
    """Token ids and layouts of pieces, made once per number of slots."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._known: dict[int, tuple[Tensor, Layout]] = {}

    def of(self, slots: int) -> tuple[Tensor, Layout]:
        if slots not in self._known:
            ids = torch.tensor([self._subject.slot_ids * slots], device=self._subject.device)
            self._known[slots] = ids, self._subject.layout(slots)
        return self._known[slots]


class PlainIngest:
    """The model's own step, piece by piece."""

    def __init__(
        self,
        model: SpatialTTTForConditionalGeneration,
        subject: Subject,
        anchors: AnchorPolicy | None = None,
    ) -> None:
        self._model, self._subject, self._pieces = model, subject, _Pieces(subject)
        self._anchors = anchors
        self.restart()

    def restart(self) -> None:
        self._state = self._model.decoder.start(self._anchors)

    @property
    def state(self) -> DecoderState:
        return self._state

    view = state

    def watch(self, pieces: Iterable[Tensor]) -> None:
        for frames in pieces:
            ids, layout = self._pieces.of(frames.shape[0] // FRAMES_PER_SLOT)
            given = self._given_away()
            vision = [self._encode(frames)]
            del frames
            _, self._state = self._model.decode_piece(ids, layout, vision.pop(), given, wanted=0)

    def finish(self, frames: list[Tensor], words: Tensor, more: int) -> Read:
        ids, layout = self._pieces.of(frames[0].shape[0] // FRAMES_PER_SLOT)
        ids, layout = torch.cat((ids, words), 1), join(layout, (END, text(words.shape[1])))
        piece = [Piece(ids, layout, self._encode(frames.pop()))]
        read = finish(self._model, self._given_away(), piece, more)
        self._state = read.fork
        return read

    def _given_away(self) -> DecoderState:
        given = self._state.given_away()
        self._state = given  # else the layers' old parts would stay alive here
        return given

    def _encode(self, frames: Tensor) -> VisionTokens:
        model, subject = self._model, self._subject
        # Batch by batch, since patches are larger than frames.
        slots = batch_slots(frames.shape[0] // FRAMES_PER_SLOT)
        batches = list(frames.split(FRAMES_PER_SLOT * slots))

        def encode(box: list[Tensor]) -> VisionTokens:
            return model.encode([subject.patches(box.pop())], subject.grid)

        return in_batches(encode, batches)


class SteadyIngest:
    """The static-shape engine, as a steady session of its own uses it."""

    def __init__(
        self,
        model: SpatialTTTForConditionalGeneration,
        subject: Subject,
        anchors: AnchorPolicy | None = None,
    ) -> None:
        self._model, self._subject, self._pieces = model, subject, _Pieces(subject)
        self._anchors = anchors
        self._stream = SteadyStream(model)
        self.restart()

    def restart(self) -> None:
        self._stream.turn_to(self._model.decoder.start(self._anchors))

    @property
    def state(self) -> DecoderState:
        return self._stream.settle(self.view)

    @property
    def view(self) -> DecoderState:
        return self._stream.view()

    def watch(self, pieces: Iterable[Tensor]) -> None:
        subject, stream = self._subject, self._stream
        for frames in pieces:
            vision = stream.encode(subject.patches(frames), subject.grid)
            stream.advance(*self._pieces.of(frames.shape[0] // FRAMES_PER_SLOT), vision)

    def finish(self, frames: list[Tensor], words: Tensor, more: int) -> Read:
        self.watch((frames.pop(),))
        return read_question(self._model, self.view, asked(words), more)


def open_ingest(
    engine: str,
    model: SpatialTTTForConditionalGeneration,
    subject: Subject,
    anchors: AnchorPolicy | None = None,
) -> Ingest:
    """A fresh stream on the engine of this name; `anchors` bounds what the anchors keep."""
    kind = SteadyIngest if engine == "steady" else PlainIngest
    return kind(model, subject, anchors)
