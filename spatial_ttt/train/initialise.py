"""Weights for training from nothing (a loaded model needs none of this)."""

from __future__ import annotations

import math

import torch
from torch import nn

from spatial_ttt.model.anchor import Attention
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.ttt import TTTAttention

STD = 0.02


@torch.no_grad()
def initialise(
    model: SpatialTTTForConditionalGeneration, seed: int, gate_bias: float = 0.0
) -> None:
    """Fill every matrix from a seed; output projections start smaller, by the depth of the network.

    Embeddings that are also the layer over the vocabulary are drawn as that linear layer.

    `gate_bias` above 0 opens the gate of the fast weights from the first step on: a model trained
    from nothing has no pretrained behaviour to keep.
    """
    generator = torch.Generator().manual_seed(seed)
    depth = 2 * model.config.text_config.num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(
                module.weight, std=1 / math.sqrt(3 * module.in_features), generator=generator
            )
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=STD, generator=generator)
        elif isinstance(module, nn.Conv3d):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=1 / math.sqrt(fan_in), generator=generator)
    for layer in model.decoder.layers:
        attention: Attention = layer.self_attn  # type: ignore[assignment]
        attention.o_proj.weight.div_(math.sqrt(depth))
        layer.mlp.down_proj.weight.div_(math.sqrt(depth))  # type: ignore[union-attr, operator]
        if isinstance(attention, TTTAttention):
            _open_gate(attention, generator, gate_bias)
    model.tie_weights()


def _open_gate(attention: TTTAttention, generator: torch.Generator, bias: float) -> None:
    """Small rates and momenta at first, so that every token is written about alike; the gate as asked."""
    for parameter in attention.fast_weights.parameters():
        nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5, generator=generator)
    attention.lr_proj.weight.mul_(0.1)
    if attention.ttt_scale_proj is not None:
        nn.init.zeros_(attention.ttt_scale_proj.weight)
        nn.init.constant_(attention.ttt_scale_proj.bias, bias)
