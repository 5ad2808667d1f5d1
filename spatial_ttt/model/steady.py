"""A decoder in its steady state: the same layers, with fixed shapes, replayed as CUDA graphs.

A stream soon comes in pieces of one layout, and every layer's state has its final shape. From then on a
piece is the same list of kernels with other numbers, so each layer's list is captured once and replayed: the
host does next to nothing. What is not steady (the first pieces, a longer time stamp, the end of a video) runs
layer by layer as everywhere else. Without graphs (on a CPU, in tests) the captured functions are simply called.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from spatial_ttt.errors import SessionError
from spatial_ttt.model.decoder import AnchorLayer, HybridDecoder, TTTLayer
from spatial_ttt.model.kernels.captured import Graphs
from spatial_ttt.model.state import DecoderState, Tokens, TTTState, roomy
from spatial_ttt.model.steady_anchor import SteadyAnchor
from spatial_ttt.model.steady_graphs import Buffers, Moves
from spatial_ttt.model.steady_ttt import SteadyTTT


class SteadyDecoder:
    """A decoder that owns one stream's state and pushes pieces through it.

    Not atomic: pieces write over the state. A piece that the first layer refuses changes nothing; one that
    fails further on leaves the layers apart (`is_torn`), and only `load` helps. Whoever must go back keeps an
    `export` of the moment before.
    """

    def __init__(self, decoder: HybridDecoder) -> None:
        device = decoder.norm.weight.device
        buffers, graphs = Buffers(), Graphs(device)
        self.decoder = decoder
        self.buffers = buffers
        self.graphs = graphs  # who captures more for the same stream shares its memory
        self.layers: list[SteadyTTT | SteadyAnchor] = [
            SteadyTTT(layer, buffers, graphs)
            if isinstance(layer, TTTLayer)
            else SteadyAnchor(cast(AnchorLayer, layer), buffers, graphs)
            for layer in decoder.layers
        ]
        self.num_tokens = self.position = 0  # the position is the caller's, as in `HybridDecoder`
        self.is_torn = False

    @torch.no_grad()
    def load(self, state: DecoderState) -> None:
        """Take a stream's state over; the given state stays as it is.

        What was captured stays good: a state of the same shapes is copied to where the last one lay. So one engine,
        with one set of captured work, serves streams of equal shapes piece by piece.
        """
        self.is_torn = True
        moves = Moves()
        for layer, past in zip(self.layers, state.layers, strict=True):
            layer.load(cast(Any, past), moves)
        moves.make()  # of all layers side by side: a launch each would take longer
        self.num_tokens, self.position = state.num_tokens, state.position
        self.is_torn = False

    @torch.no_grad()
    def push(self, tokens: Tokens, *, needs_output: bool = True) -> Tokens:
        """Push a piece through all layers; returns the determined tokens after the final norm.

        Without output a last anchor only keeps its keys and values, and the returned tokens mean nothing.
        Raises SessionError after a piece that failed half-way.
        """
        if torch.is_inference_mode_enabled():
            raise SessionError("a steady decoder runs under no_grad, not inference_mode")
        self._check_whole()
        count, last = tokens.length, len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            if not tokens.layout:  # held back: the others have nothing to do
                break
            tokens = layer.push(tokens, needs_output=needs_output or number < last)
            self.is_torn = True
        self.is_torn = False
        self.num_tokens += count
        if not needs_output:
            return tokens
        return tokens._replace(hidden=self.decoder.norm(tokens.hidden))

    def view(self) -> DecoderState:
        """The stream's state as it lies, not copied: the next piece writes over it."""
        self._check_whole()
        layers = tuple(
            layer.cache if isinstance(layer, SteadyAnchor) else layer.state for layer in self.layers
        )
        return DecoderState(layers, self.position, self.num_tokens)

    @torch.no_grad()
    def export(self) -> DecoderState:
        """The stream's state, as a copy that later pieces leave alone."""
        state = self.view()
        moves = Moves()
        layers = [
            roomy(layer, moves.places, moves.values) if isinstance(layer, TTTState) else layer
            for layer in state.layers
        ]
        moves.make()
        return state._replace(layers=tuple(layers))

    def own_tensors(self) -> Iterator[Tensor]:
        """Everything the engine keeps in memory beside the anchors' caches, which are its stream's; what the
        device needs inside captured work is not among it."""
        yield from self.buffers.known.values()
        for layer in self.layers:
            yield from layer.own_tensors()

    def _check_whole(self) -> None:
        if self.is_torn:
            raise SessionError(
                "a piece failed half-way and left the layers apart; load a state from before it"
            )
