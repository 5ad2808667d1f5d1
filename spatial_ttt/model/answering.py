"""The tokens of an answer, pushed one at a time: on the model's engine where it is free and fits, else plainly.

A model has one engine for answers (`SteadyAnswer`), made for the second token of its first answer and kept with the
model, since capturing costs more than a short answer. It serves one answer at a time; who finds it taken decodes
plainly and asks again at the next token. The engine only reads: where an answer fills a chunk of the fast weights,
the tokens so far are pushed plainly, in one piece, on the state from before them, and the engine is loaded anew. So
no state is ever copied out of it.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

import torch
from torch import Tensor

from spatial_ttt.errors import SessionError
from spatial_ttt.model.decoder import TTTLayer
from spatial_ttt.model.fast_weights import BriefState
from spatial_ttt.model.kernels import requested_backend
from spatial_ttt.model.layout import text
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.state import DecoderState, TTTState
from spatial_ttt.model.steady_answer import Kind, SteadyAnswer, kind_of

log = logging.getLogger(__name__)


class Answer:
    """An answer under way on a continuation; whoever drops it closes it."""

    def __init__(self, model: SpatialTTTForConditionalGeneration, state: DecoderState) -> None:
        self.state = state
        """What must be kept for the answer; may be replaced by the same with tensors moved elsewhere.

        An answer on the engine needs no layer's state where it writes nothing; else these are the layers from before
        the tokens that the engine was given.
        """
        self._model = model
        self._owner = _owner_of(model)
        self._engine: SteadyAnswer | None = None
        self._pushed: list[int] = []  # the engine's tokens, which the state lacks
        self._room = 0  # tokens that the engine may take
        self._writes = False  # a write comes after them

    def push(self, token: int) -> Tensor:
        """Push a token; the logits [V] after it in float32, good until the next token is pushed.

        Raises SessionError for more tokens than the continuation was begun for.
        """
        if self._engine is None:
            self._engine = self._begin()
        if self._engine is None:
            return self._plainly([token])
        if not self._room:
            if not self._writes:
                raise SessionError(
                    "a continuation of at most 0 more tokens got 1; begin it with more"
                )
            tokens = [*self._pushed, token]
            self.close()
            return self._plainly(tokens)
        try:
            said = self._engine.push(token)
        except BaseException as error:
            self._engine = None
            self._owner.drop()
            if isinstance(error, torch.OutOfMemoryError) and self.state.layers:
                return self._plainly([*self._pushed, token])
            raise
        self._room -= 1
        if self._writes:
            self._pushed.append(token)
        else:  # the engine has all that the answer will read
            past = self.state
            position, num_tokens = past.position + 1, past.num_tokens + 1
            self.state = past._replace(layers=(), position=position, num_tokens=num_tokens)
        return said.logits

    def close(self) -> None:
        """Leave the engine to others."""
        engine, self._engine = self._engine, None
        if engine is not None:
            self._owner.take_back(engine)

    def _plainly(self, tokens: list[int]) -> Tensor:
        ids = torch.tensor([tokens], device=self._model.device)
        layout = (text(len(tokens)),)
        done, self.state = self._model.decode_piece(ids, layout, None, self.state)
        logits: Tensor = self._model.lm_head(done.hidden[0, -1]).float()
        return logits

    def _begin(self) -> SteadyAnswer | None:
        """The engine with the state, if it is free and may go on from there."""
        if torch.is_grad_enabled() or torch.is_inference_mode_enabled():
            return None
        self._room, self._writes = _room(self.state, self._model)
        kind = kind_of(self._model, self.state, self._room) if self._room else None
        if kind is None:
            return None
        engine = self._owner.lend(self._model, kind, self.state)
        self._pushed = []
        return engine


class _Owner:
    """Where a model's engine lies, and whether somebody has it. It stays behind when a model is copied."""

    def __init__(self) -> None:
        # Never waited for: answers may end while memory is collected.
        self._taken = threading.Lock()
        self._engine: SteadyAnswer | None = None
        self._made_for: Any = None

    def __reduce__(self) -> tuple[type[_Owner], tuple[()]]:
        return _Owner, ()

    def lend(
        self, model: SpatialTTTForConditionalGeneration, kind: Kind, state: DecoderState
    ) -> SteadyAnswer | None:
        """The engine, loaded with this state; None: it is taken, or finds no memory."""
        if not self._taken.acquire(blocking=False):
            return None
        try:
            made_for = (kind, _stamp(model))
            if self._engine is None or self._made_for != made_for:
                self._engine = None  # before there are two
                self._engine = SteadyAnswer(model, kind)
                self._made_for = made_for
            self._engine.load(state)
        except torch.OutOfMemoryError:
            log.warning("no memory for the engine of answers: this answer is decoded plainly")
            self.drop()
            return None
        except BaseException:
            self.drop()
            raise
        return self._engine

    def take_back(self, engine: SteadyAnswer) -> None:
        """The answer is over."""
        engine.clear()
        self._taken.release()

    def drop(self) -> None:
        """Whoever has the engine says that it is not to be used again."""
        self._engine = None
        self._taken.release()


def _owner_of(model: SpatialTTTForConditionalGeneration) -> _Owner:
    owner: _Owner = model.__dict__.setdefault("answers", _Owner())
    return owner


def _stamp(model: SpatialTTTForConditionalGeneration) -> Any:
    """What captured work has of the model: where its weights lie, which values they have, how it computes."""
    weights = (*model.decoder.parameters(), *model.lm_head.parameters())
    places = tuple(
        (weight.data_ptr(), 0 if weight.is_inference() else weight._version, weight.dtype)
        for weight in weights
    )
    is_on = tuple(
        layer.self_attn.memory_is_on
        for layer in model.decoder.layers
        if isinstance(layer, TTTLayer)
    )
    return places, is_on, model.device, requested_backend()


def _room(state: DecoderState, model: SpatialTTTForConditionalGeneration) -> tuple[int, bool]:
    """Tokens that may follow a state before a write or the continuation's end, and whether it is a write."""
    rooms, writes = [], False
    for layer, past in zip(model.decoder.layers, state.layers, strict=True):
        if isinstance(layer, TTTLayer) and isinstance(past, TTTState):
            fast, size = past.fast, layer.self_attn.config.chunk_size
            left = fast.left if isinstance(fast, BriefState) else size + 1
            writes |= fast.num_tokens + left > size
            rooms.append(
                min(left, size - fast.num_tokens) if fast.num_tokens + left > size else left
            )
    return min(rooms, default=0), writes
