"""A model with its memory taken away: layers swapped in place for the controls, and put back.

Every variant changes only what a control names; weights are shared with the model as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from spatial_ttt.eval.interface import SessionOptions
from spatial_ttt.model import fast_weights as fw
from spatial_ttt.model.anchor import Attention
from spatial_ttt.model.attention import attend
from spatial_ttt.model.kv_cache import KVCache, append
from spatial_ttt.model.layers import rotate, taken
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.state import Projected
from spatial_ttt.model.ttt import TTTAttention

EVERYTHING = 1 << 30
"""A window, in tokens, that no stream outgrows."""


class ClosedGate(nn.Module):
    """In the place of `ttt_scale_proj`: the gate silu(0) = 0 for every token and head."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads

    def forward(self, x: Tensor) -> Tensor:
        """x [B, L, D] -> zeros [B, L, heads]."""
        return x.new_zeros(*x.shape[:2], self.num_heads)


@contextmanager
def variant(model: SpatialTTTForConditionalGeneration, options: SessionOptions) -> Iterator[None]:
    """Within the block the model computes what `options` say; afterwards it is as before."""
    undo: list[Callable[[], None]] = []
    try:
        for layer in model.decoder.layers:
            attention = layer.self_attn
            if isinstance(attention, TTTAttention):
                _change_ttt(attention, options, undo)
            elif isinstance(attention, Attention) and options.attention == "window_only":
                window = model.config.ttt_config.window_size
                _set(undo, attention, "attend_all", _windowed(attention, window))
        yield
    finally:
        for step in reversed(undo):
            step()


def _change_ttt(
    attention: TTTAttention, options: SessionOptions, undo: list[Callable[[], None]]
) -> None:
    if options.memory == "off" or options.attention != "hybrid":
        _set(undo, attention, "ttt_scale_proj", ClosedGate(attention.config.num_fast_heads))
    if options.attention == "full":
        _set(undo, attention, "config", replace(attention.config, window_size=EVERYTHING))
    if options.memory == "reset":
        _set(undo, attention, "_read_and_write", _reader(attention))


def _reader(attention: TTTAttention) -> Callable[..., tuple[Tensor, fw.FastState]]:
    """A branch that starts each chunk from the trained weights.

    A chunk is read with the weights of its start, so none ever reads what was written.
    """

    def read_initial(
        tokens: Projected, rope: Tensor, state: fw.FastState, *_: object
    ) -> tuple[Tensor, fw.FastState]:
        return fw.apply(state.weights, attention.fast_inputs(tokens, rope).query), state

    return read_initial


def _windowed(attention: Attention, window: int) -> Callable[..., tuple[Tensor, KVCache]]:
    """An anchor that sees no further back than a TTT layer's window."""

    def attend_window(
        x: Tensor | list[Tensor],
        rope: Tensor,
        cache: KVCache | None,
        branches: int = 1,
        wanted: int | None = None,
    ) -> tuple[Tensor, KVCache]:
        x = taken(x)
        q, k, v = (t.transpose(1, 2) for t in attention.normed(attention.project(x)))
        cache = append(cache, rotate(k, rope), v)
        keys, values = cache.past
        first = 0 if wanted is None else max(0, x.shape[1] - wanted)
        query = rotate(q, rope)[:, :, first:]
        out = attend(query, keys, values, window=window, branches=branches)
        return attention.o_proj(out.transpose(1, 2).flatten(2)), cache

    return attend_window


def _set(undo: list[Callable[[], None]], owner: Any, name: str, value: Any) -> None:
    """Set an attribute and remember how to put back what was there."""
    had = name in owner.__dict__ or name in getattr(owner, "_modules", {})
    before = getattr(owner, name)
    if isinstance(value, nn.Module):
        value.to(next(owner.parameters()).device)
    setattr(owner, name, value)
    undo.append(lambda: setattr(owner, name, before) if had else delattr(owner, name))
