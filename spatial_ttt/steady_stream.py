"""A session's stream in a steady decoder: states go in and come out as if the decoder were a function.

The engine writes over its state, so what a push returns is a view, good until the next push; `settle` turns
it into a state that stays. Any other state may be pushed on: the engine then takes it over first.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spatial_ttt.errors import SessionError
from spatial_ttt.model.layout import Layout
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.state import DecoderState, storages
from spatial_ttt.model.steady import SteadyDecoder
from spatial_ttt.model.steady_vision import SteadyVision
from spatial_ttt.model.vision import VisionTokens

LOST = "a piece failed half-way and the steady session is lost; close it and restore a snapshot"


class SteadyStream:
    """Pushes the pieces of one stream; not for two threads at once."""

    def __init__(self, model: SpatialTTTForConditionalGeneration) -> None:
        self._model = model
        self._engine = SteadyDecoder(model.decoder)
        self._vision = SteadyVision(model, self._engine.graphs)
        self._held: DecoderState | None = None  # the state that the engine's tensors say
        self._view: DecoderState | None = None  # the last one returned, unless it was settled
        self._lost: DecoderState | None = None  # a view that a failing piece wrote over

    def encode(self, patches: Tensor, grid: tuple[int, int]) -> VisionTokens:
        """As `model.encode`; the result is good until the next call."""
        return self._vision.encode(patches, grid)

    @torch.no_grad()
    def push(
        self, past: DecoderState, ids: Tensor, layout: Layout, vision: VisionTokens | None
    ) -> DecoderState:
        """Push ids [1, L] on `past`; returns a view of the new state and ends the one before.

        Should it fail, a settled `past` is as good as ever; a view may be lost (SessionError).
        """
        engine = self._engine
        hidden, deepstack = self._model.embed(ids, layout, vision)
        if past is not self._held:
            self._held = self._view = None
            engine.load(past)
            self._held = past
        tokens, position = engine.decoder.tokens(hidden, layout, past.position, deepstack)
        try:
            engine.push(tokens, needs_output=False)
        except (RuntimeError, MemoryError) as error:  # such as torch's errors of a device
            if engine.is_torn and past is self._view:
                raise SessionError(LOST) from error
            raise
        finally:
            if engine.is_torn:
                self._lost, self._held, self._view = self._view, None, None
        engine.position = position
        self._held = self._view = engine.view()
        return self._held

    def settle(self, state: DecoderState) -> DecoderState:
        """The same state, good for ever: a view is copied, any other state is that already."""
        if state is not self._view:
            return state
        self._held, self._view = self._engine.export(), None
        return self._held

    def places(self) -> set[int]:
        """Where the memory begins that the next push may write over."""
        return set() if self._engine.is_torn else storages(self._engine.view())

    def check(self, state: DecoderState) -> None:
        """Raise SessionError for a view that a piece wrote over and failed."""
        if state is self._lost:
            raise SessionError(LOST)
