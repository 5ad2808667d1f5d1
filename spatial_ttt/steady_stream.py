"""A stream in a steady decoder: pieces go in, and states come out as if the decoder were a function.

The engine writes over its state, so what it returns is a view, good until the next piece; `settle` turns
it into a state that stays. Any other state may be pushed on: the engine then takes it over first.
"""

from __future__ import annotations

from threading import Lock

import torch
from torch import Tensor

from spatial_ttt.errors import SessionError
from spatial_ttt.model.layout import Layout
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.state import DecoderState, storage_bytes, storages
from spatial_ttt.model.steady import SteadyDecoder
from spatial_ttt.model.steady_vision import SteadyVision
from spatial_ttt.model.vision import VisionTokens

LOST = "a piece failed half-way and the steady session is lost; close it and restore a snapshot"


class SteadyStream:
    """Watches the pieces of one stream at a time; not for two threads at once.

    `push` is for whoever keeps the states, as sessions do; `advance` for whoever only goes on.
    """

    def __init__(self, model: SpatialTTTForConditionalGeneration) -> None:
        self._model = model
        self._engine = SteadyDecoder(model.decoder)
        self._vision = SteadyVision(model, self._engine.graphs)
        self._held: DecoderState | None = None  # a state that the engine's tensors say, once known
        self._view: DecoderState | None = None  # the same, unless it was settled or given
        self._lost: DecoderState | None = None  # a view that a failing piece wrote over

    def encode(self, patches: Tensor | list[Tensor], grid: tuple[int, int]) -> VisionTokens:
        """As `model.encode`; the result is good until the next call."""
        return self._vision.encode(patches, grid)

    def turn_to(self, state: DecoderState) -> None:
        """Go on from this state; what was captured stays good for streams of equal shapes."""
        if state is not self._held:
            self._held = self._view = None
            self._engine.load(state)
            self._held = state

    @torch.no_grad()
    def push(
        self, past: DecoderState, ids: Tensor, layout: Layout, vision: VisionTokens | None
    ) -> DecoderState:
        """Push ids [1, L] on `past`; returns a view of the new state and ends the one before.

        Should it fail, a settled `past` is as good as ever; a view may be lost (SessionError).
        """
        hidden, deepstack = self._model.embed(ids, layout, vision)
        self.turn_to(past)
        try:
            self._push(hidden, layout, deepstack)
        except (RuntimeError, MemoryError) as error:  # such as torch's errors of a device
            if past is self._lost:
                raise SessionError(LOST) from error
            raise
        return self.view()

    @torch.no_grad()
    def advance(self, ids: Tensor, layout: Layout, vision: VisionTokens | None) -> None:
        """Push ids [1, L] on the stream as it stands; ends the last view and makes none."""
        hidden, deepstack = self._model.embed(ids, layout, vision)
        self._push(hidden, layout, deepstack)

    def _push(self, hidden: Tensor, layout: Layout, deepstack: Tensor | None) -> None:
        engine = self._engine
        tokens, position = engine.decoder.tokens(hidden, layout, engine.position, deepstack)
        try:
            engine.push(tokens, needs_output=False)
        finally:
            if engine.is_torn:
                self._lost, self._held, self._view = self._view, None, None
        engine.position = position
        self._held = self._view = None

    def view(self) -> DecoderState:
        """The state as it stands, not copied: good until the next piece, unless it was settled."""
        if self._held is None:
            self._held = self._view = self._engine.view()
        return self._held

    def settle(self, state: DecoderState) -> DecoderState:
        """The same state, good for ever: a view is copied, any other state is that already."""
        if state is not self._view:
            return state
        self._held, self._view = self._engine.export(), None
        return self._held

    def for_fork(self) -> bool:
        """What a forked session is given: an engine of its own."""
        return True

    def places(self) -> set[int]:
        """Where the memory begins that the next push may write over."""
        return set() if self._engine.is_torn else storages(self._engine.view())

    @property
    def num_bytes(self) -> int:
        """Bytes that the engine keeps for itself: the state it works in and its buffers; no stream's anchors."""
        return storage_bytes((*self._engine.own_tensors(), *self._vision.own_tensors()))

    def check(self, state: DecoderState) -> None:
        """Raise SessionError for a view that a piece wrote over and failed."""
        if state is self._lost:
            raise SessionError(LOST)


class SharedStream:
    """A steady stream for many sessions of one model, from any threads: each state is copied out after its piece.

    So captured work and its memory are there once, a session pays for two copies of its state per piece, and no piece
    of one session touches what another holds.
    """

    def __init__(self, model: SpatialTTTForConditionalGeneration) -> None:
        self._stream = SteadyStream(model)
        self._turn = Lock()

    def encode(self, patches: Tensor | list[Tensor], grid: tuple[int, int]) -> VisionTokens:
        """As `model.encode`."""
        with self._turn:
            return VisionTokens(*(x.clone() for x in self._stream.encode(patches, grid)))

    def push(
        self, past: DecoderState, ids: Tensor, layout: Layout, vision: VisionTokens | None
    ) -> DecoderState:
        """Push ids [1, L] on `past`, which stays as it is; the new state is good for ever."""
        with self._turn:
            return self._stream.settle(self._stream.push(past, ids, layout, vision))

    def settle(self, state: DecoderState) -> DecoderState:
        """The same state: none is a view."""
        return state

    def for_fork(self) -> SharedStream:
        """What a forked session is given: the same engine."""
        return self

    def places(self) -> set[int]:
        """Nobody's state lies where a push writes."""
        return set()

    @property
    def num_bytes(self) -> int:
        """Bytes that the engine keeps for itself, whoever watches; waits for the piece in hand.

        The state copied out last is still at hand, too, but it is that session's own, or gone with the next piece.
        """
        with self._turn:
            return self._stream.num_bytes

    def check(self, state: DecoderState) -> None:
        """No state is ever lost."""


def open_stream(
    model: SpatialTTTForConditionalGeneration, steady: bool | SharedStream
) -> SteadyStream | SharedStream | None:
    """The engine of a new session: its own (True), one that it shares, or none."""
    return steady if isinstance(steady, SharedStream) else SteadyStream(model) if steady else None
