"""Making a model ready to answer on a GPU, and how much to give it at once.

The kernels of streaming choose themselves (see `model.kernels`); what is left to do once per model is to lay the
weights out: those that read the same input become one product. Parameters keep their names, shapes and values.
"""

from __future__ import annotations

import logging

import torch
from torch import nn

from spatial_ttt.errors import ConfigError
from spatial_ttt.model.anchor import Attention
from spatial_ttt.model.configuration import SpatialTTTConfig
from spatial_ttt.model.layers import MLP, pack
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.ttt import TTTAttention
from spatial_ttt.model.vision import keep_derived_of

log = logging.getLogger(__name__)

PIECE_SLOTS = {"cuda": 64, "cpu": 4}
"""Slots of a recorded video that go through the model together. A GPU reads 64 in the time its host needs to ask for
them; a CPU gains nothing from more than a few."""


def piece_slots(device: torch.device) -> int:
    """How many slots of a recorded video to push at once on this device; any number gives the same answers."""
    return PIECE_SLOTS.get(device.type, PIECE_SLOTS["cpu"])


def last_slots(slots_per_piece: int, config: SpatialTTTConfig) -> int:
    """Slots of a recording's last piece, with which a question is read: half of a piece at most, but one at least.

    A TTT layer holds a slot back: when the video ends, the last of n of them gets n slots more than were pushed, and
    that should be no more than of any other piece. Anchors hold the most then: a whole piece would take more memory at
    that moment than at any other.
    """
    kinds = config.ttt_config.layer_types(config.text_config.num_hidden_layers)
    return max(1, min(slots_per_piece // 2, slots_per_piece - kinds.count("ttt")))


def prepare(model: SpatialTTTForConditionalGeneration) -> None:
    """Lay the weights of a model on a GPU out for inference, in place; call it after moving the model there.

    Without a GPU there is nothing to gain and nothing is done. Raises ConfigError for a model with adapters:
    merge them first, their layers are not plain products.
    """
    if model.device.type != "cuda":
        return
    for module in model.decoder.modules():
        for layers in _groups(module):
            if any(type(layer) is not nn.Linear for layer in layers):
                raise ConfigError(
                    "a model with adapters (LoRA) cannot be prepared for inference; merge them into the weights first"
                )
            pack(module, layers)
    keep_derived_of(model.model.visual)
    log.info("prepared %d layers for inference", len(model.decoder.layers))


def _groups(module: nn.Module) -> list[tuple[nn.Linear, ...]]:
    """Linear layers of a module that read the same input."""
    if isinstance(module, MLP):
        return [(module.gate_proj, module.up_proj)]
    groups: list[tuple[nn.Linear, ...]] = []
    if isinstance(module, Attention):
        groups.append((module.q_proj, module.k_proj, module.v_proj))
    if isinstance(module, TTTAttention):
        groups.append(module.rate_layers)
    return groups
