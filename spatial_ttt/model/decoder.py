"""The hybrid decoder: a stack of transducers over a stream of tokens.

Each layer takes a piece of the stream with its own state and returns the tokens that are now
determined, in order. Training, prefill, streaming and decoding are this one path:

    embed -> [layer 0] -> tokens -> [layer 1] -> ... -> norm -> hidden states of determined tokens

An anchor returns what it gets; a TTT layer lags by one slot while a video is open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from spatial_ttt.errors import ConfigError
from spatial_ttt.model.anchor import AnchorCache, Attention
from spatial_ttt.model.bounded_cache import AnchorPolicy, empty_cache
from spatial_ttt.model.configuration import TTTConfig
from spatial_ttt.model.kernels import shaping
from spatial_ttt.model.layers import MLP, RMSNorm, RotaryEmbedding, taken
from spatial_ttt.model.layout import Layout, positions
from spatial_ttt.model.state import (
    DecoderState,
    LayerState,
    Tokens,
    TTTState,
    last_tokens,
)
from spatial_ttt.model.ttt import TTTAttention

HELD_ROOM = 256
"""Tokens for which a layer leaves room before a long piece: those that the next one held back (a slot and its text)."""

ROOMY_TOKENS = 4096
"""A piece of so many is long: to copy it behind those few takes longer than to give it a place behind them."""


def feed_forward(norm: RMSNorm, mlp: MLP, hidden: Tensor, mixed: Tensor) -> Tensor:
    """Add the attention's output, then the MLP's; [B, L, D] each."""
    hidden = hidden + mixed
    out: Tensor = hidden + mlp(norm(hidden))
    return out


class DecoderLayer(nn.Module):
    """What anchor and TTT layers share: norms, MLP, residuals, DeepStack."""

    def __init__(self, text: Any) -> None:
        super().__init__()
        self.mlp = MLP(text.hidden_size, text.intermediate_size)
        self.input_layernorm = RMSNorm(text.hidden_size, text.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(text.hidden_size, text.rms_norm_eps)

    def feed_forward(
        self, hidden: Tensor | list[Tensor], mixed: Tensor | list[Tensor], room: int = 0
    ) -> Tensor:
        """Add the attention's output, then the MLP's; [B, L, D] each, which may be given away (see `layers.taken`).

        Before the result there is free memory for `room` tokens, which only without gradients may be wanted.
        """
        norm, hidden, mixed = self.post_attention_layernorm, taken(hidden), taken(mixed)
        if not shaping.applies(hidden):
            return feed_forward(norm, self.mlp, hidden, mixed)
        hidden, normed = shaping.add_rms_norm(hidden, mixed, norm.weight, norm.eps, room)
        del mixed  # as large as what the MLP makes
        return self.mlp.add_to(hidden, normed)

    def finish(self, tokens: Tokens | list[Tokens], mixed: Tensor | list[Tensor]) -> Tokens:
        """Residuals, MLP, and the DeepStack features due after this layer. Both may be given away."""
        before, rope, deepstack, layout, _ = taken(tokens)
        is_long = before.shape[0] == 1 and before.shape[1] >= ROOMY_TOKENS
        room = HELD_ROOM if is_long and shaping.applies(before) else 0
        box = [before]
        del before
        # What training compiles in its place knows of no room.
        hidden = self.feed_forward(box, mixed, room) if room else self.feed_forward(box, mixed)
        if deepstack is not None:
            hidden = hidden.add_(deepstack[0]) if room else hidden + deepstack[0]
            deepstack = deepstack[1:] if deepstack.shape[0] > 1 else None
        return Tokens(hidden, rope, deepstack, layout, room)


class AnchorLayer(DecoderLayer):
    """An untouched decoder layer: full attention, then the MLP."""

    def __init__(self, text: Any) -> None:
        super().__init__(text)
        self.self_attn = Attention(text)

    def forward(
        self,
        tokens: Tokens | list[Tokens],
        state: LayerState,
        branches: int = 1,
        keep_state: bool = True,
        wanted: int | None = None,
    ) -> tuple[Tokens, LayerState]:
        """All tokens are determined at once; the state is the cache of all keys and values.

        With `wanted` the last so many are returned. Tokens may be given away (see `layers.taken`).
        """
        tokens = taken(tokens)
        mixed, cache = self.self_attn.attend_all(
            [self.input_layernorm(tokens.hidden)],
            tokens.rope,
            cast(AnchorCache | None, state),
            branches,
            wanted,
        )
        if wanted is not None:
            tokens = last_tokens(tokens, wanted)
        given = [tokens], [mixed]
        del tokens, mixed
        return self.finish(*given), cache


class TTTLayer(DecoderLayer):
    """A decoder layer whose attention is a window beside fast weights."""

    def __init__(self, text: Any, config: TTTConfig) -> None:
        super().__init__(text)
        self.self_attn = TTTAttention(text, config)

    def forward(
        self,
        tokens: Tokens | list[Tokens],
        state: LayerState,
        branches: int = 1,
        keep_state: bool = True,
        wanted: int | None = None,
    ) -> tuple[Tokens, LayerState]:
        """Return the determined tokens, with `wanted` the last so many; hold the rest back in the state.

        Tokens may be given away (see `layers.taken`).
        """
        past = cast(TTTState | None, state)
        box = [taken(tokens)]
        normed = [self.input_layernorm(box[0].hidden)]
        del tokens
        # Not as a module's call, which would keep what the attention lets go of.
        ready, mixed, past = self.self_attn.forward(normed, box, past, branches, keep_state)
        if wanted is not None:
            ready = last_tokens(ready, wanted)
            mixed = mixed[:, mixed.shape[1] - ready.length :]
        given = [ready], [mixed]
        del ready, mixed
        return self.finish(*given), past


class HybridDecoder(nn.Module):
    """Token embeddings, layers by pattern, final norm (named as Qwen3-VL's language model)."""

    def __init__(self, text: Any, config: TTTConfig) -> None:
        super().__init__()
        rope_type = text.rope_parameters.get("rope_type", "default")
        if rope_type != "default":
            raise ConfigError(
                f"rope_type must be 'default' (Qwen3-VL's interleaved mRoPE), got {rope_type!r}"
            )
        self.embed_tokens = nn.Embedding(text.vocab_size, text.hidden_size, text.pad_token_id)
        self.layers = nn.ModuleList(
            TTTLayer(text, config) if kind == "ttt" else AnchorLayer(text)
            for kind in config.layer_types(text.num_hidden_layers)
        )
        self.norm = RMSNorm(text.hidden_size, text.rms_norm_eps)
        self.rotary_emb = RotaryEmbedding(text)
        self.gradient_checkpointing = False

    def start(self, anchors: AnchorPolicy | None = None) -> DecoderState:
        """The state before the first token; `anchors` bounds what the anchors keep (None: everything)."""
        layers = tuple(
            empty_cache(anchors) if anchors and isinstance(layer, AnchorLayer) else None
            for layer in self.layers
        )
        return DecoderState(layers, 0, 0)

    def tokens(
        self, hidden: Tensor, layout: Layout, position: int, deepstack: Tensor | None = None
    ) -> tuple[Tokens, int]:
        """Give embedded tokens [B, L, D] their positions; returns the next position too."""
        where, following = positions(layout, position, hidden.device)
        rope = self.rotary_emb(where[:, None].expand(-1, hidden.shape[0], -1), hidden.dtype)
        return Tokens(hidden, rope, deepstack, layout), following

    def forward(
        self,
        tokens: Tokens,
        state: DecoderState,
        *,
        branches: int = 1,
        keep_state: bool = True,
        wanted: int | None = None,
    ) -> tuple[Tokens, DecoderState]:
        """Push a piece through all layers.

        Returns the tokens determined by it, after the final norm, and the new state (the position is
        the caller's). With `branches` > 1 the piece holds that many independent continuations
        and the returned state is not to be used; `keep_state=False` says the same. With `wanted` only
        the last so many of the tokens are returned: the last layer then does nothing for the others.
        """
        count = tokens.length
        layers: list[LayerState] = []
        for number, layer in enumerate(self.layers):
            past = state.layers[number]
            if not tokens.layout:  # a layer held everything back: the others have nothing to do
                layers.extend(state.layers[number:])
                break
            if isinstance(state.layers, list):
                state.layers[number] = None  # the caller gave it away
            step = cast("Callable[..., tuple[Tokens, LayerState]]", layer)
            how = (branches, keep_state, wanted if number + 1 == len(self.layers) else None)
            if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
                tokens, new = checkpoint(step, tokens, past, *how, use_reentrant=False)
            else:
                box = [tokens]
                del tokens
                tokens, new = step(box, past, *how)
            layers.append(new)
        state = state._replace(layers=tuple(layers), num_tokens=state.num_tokens + count)
        return tokens._replace(hidden=self.norm(tokens.hidden), room=0), state
