"""The authors' decoding, faults included, so that their generated tokens can be checked too.

Their state keeps the last min(S, C) prompt tokens as pending, written or not, so the first decode
step writes tokens a second time, and always after reading. Ours never does this; golden files
made by their code do. Used by nothing but the golden checks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from spatial_ttt.model import fast_weights as fw
from spatial_ttt.model.state import Projected
from spatial_ttt.model.ttt import TTTAttention


class _AuthorsMemory:
    """Stands in for one layer's read-and-write: prefill as ours, then their pending list."""

    def __init__(self, layer: TTTAttention) -> None:
        self.layer = layer
        self.pending: fw.FastInputs | None = None

    def __call__(
        self, tokens: Projected, rope: Tensor, state: fw.FastState, *_: object
    ) -> tuple[Tensor, fw.FastState]:
        inputs = self.layer.fast_inputs(tokens, rope)
        initial, config = self.layer.fast_weights.initial(), self.layer.config
        if self.pending is None:
            out, state = fw.scan(state, inputs, initial, config)
            self.pending = inputs.cut(max(0, inputs.length - config.chunk_size), inputs.length)
            return out, state._replace(gradient=None, beta_sum=None, num_tokens=0)
        out = fw.apply(state.weights, inputs.query)
        pending = fw.FastInputs(*(torch.cat(p, 2) for p in zip(self.pending, inputs, strict=True)))
        if pending.length >= config.chunk_size:
            chunk = pending.cut(0, config.chunk_size)
            state = fw.commit(fw.accumulate(state, chunk), initial, config)
            pending = pending.cut(config.chunk_size, pending.length)
        self.pending = pending
        return out, state


@contextmanager
def authors_decode(module: nn.Module) -> Iterator[None]:
    """Inside, TTT layers of `module` prefill the first piece and then decode as the authors' do."""
    layers = [layer for layer in module.modules() if isinstance(layer, TTTAttention)]
    for layer in layers:
        layer.__dict__["_read_and_write"] = _AuthorsMemory(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["_read_and_write"]
