"""How many bytes a session's state will take, known before it is opened."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from spatial_ttt.model.configuration import SpatialTTTConfig, state_dtype


@dataclass(frozen=True)
class StateBudget:
    """Bytes of one stream's decoder state, for slots of a given size."""

    fast_weights: int
    """Weights, master, momentum and open-chunk sums of all TTT layers."""
    windows: int
    """Keys and values of the sliding windows, full."""
    holding: int
    """Slots held back and kept as the convolution's context."""
    anchor_bytes_per_token: int
    """Keys and values of all anchors: grows with every token seen."""

    @property
    def fixed(self) -> int:
        """What never grows."""
        return self.fast_weights + self.windows + self.holding

    def total(self, num_tokens: int) -> int:
        """All bytes after `num_tokens` tokens, with exact anchors."""
        return self.fixed + num_tokens * self.anchor_bytes_per_token


def state_budget(
    config: SpatialTTTConfig, grid: tuple[int, int], dtype: torch.dtype, text_per_slot: int = 16
) -> StateBudget:
    """The budget for slots of `grid` (h, w) vision tokens and activations of `dtype`.

    A tight upper bound: every layer is taken to hold a slot and all `text_per_slot` text tokens (time
    stamp, vision start and end) that stand between two slots; the first layer holds fewer.
    """
    text, ttt = config.text_config, config.ttt_config
    act, exact = dtype.itemsize, state_dtype(dtype).itemsize
    width, kv = text.hidden_size, text.num_key_value_heads * text.head_dim
    heads, slot = ttt.num_fast_heads, grid[0] * grid[1]
    matrices = 3 * heads * (width // heads) ** 2 * exact
    copies = 2 + (ttt.norm_placement == "pre") + ttt.use_momentum
    types = config.hybrid_layers
    num_ttt = types.count("ttt")
    taps = len(config.vision_config.deepstack_visual_indexes)
    ahead = ttt.convolution == "centred"
    context_slots = {"centred": 1, "causal": 2, "none": 0}[ttt.convolution]
    rates = (3 + ttt.use_momentum + ttt.use_gate) * heads
    per_token = (width + text.head_dim + width + 2 * kv + rates) * act
    holding = 0
    for layer, kind in enumerate(types):
        if kind == "ttt":
            holding += context_slots * slot * 3 * width * act
            holding += (
                ahead * (slot + text_per_slot) * (per_token + max(0, taps - layer) * width * act)
            )
    return StateBudget(
        fast_weights=num_ttt * (copies * matrices + heads * exact),
        windows=num_ttt * 2 * ttt.window_size * kv * act,
        holding=holding,
        anchor_bytes_per_token=(len(types) - num_ttt) * 2 * kv * act,
    )
