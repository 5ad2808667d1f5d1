"""Making a model fast on a GPU: token-wise parts compiled, everything else as it is.

What depends on one token only (projections, norms, rotation, MLP, vision blocks) is the same code for
every layer and piece, so each part is compiled once and shared. Attention, convolution and the fast
weights have kernels of their own and choose them by themselves.
"""

from __future__ import annotations

import logging
from types import MethodType
from typing import Any, cast

import torch

from spatial_ttt.errors import ConfigError
from spatial_ttt.model.decoder import DecoderLayer
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.ttt import Attention, TTTAttention
from spatial_ttt.model.vision import vision_block

log = logging.getLogger(__name__)

PARTS: tuple[tuple[type, str], ...] = (
    (DecoderLayer, "feed_forward"),
    (TTTAttention, "project"),
    (Attention, "qkv"),
    (TTTAttention, "rotated"),
)
"""Methods that take tensors and return tensors, by the class that states them."""


def compile_model(model: SpatialTTTForConditionalGeneration) -> None:
    """Compile the token-wise parts of a model in place; outputs stay within rounding.

    The first pieces take a minute while code is generated; lengths may vary afterwards.
    Raises ConfigError without a GPU, where compiling gains little and needs a C++ compiler.
    """
    if model.device.type != "cuda":
        raise ConfigError(
            f"compile_model wants a model on a GPU, this one is on {model.device.type}"
        )
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    for owner, name in PARTS:
        compiled = torch.compile(getattr(owner, name), dynamic=True)
        for module in model.decoder.modules():
            # A TTT layer's projection holds its own q, k, v: only anchors need theirs compiled.
            if isinstance(module, owner) and not (
                name == "qkv" and isinstance(module, TTTAttention)
            ):
                module.__dict__[name] = MethodType(compiled, module)
    for layer in model.decoder.layers:
        norm = cast(DecoderLayer, layer).input_layernorm
        norm.compile(dynamic=True)
    visual = cast(Any, model.model.visual)
    visual.__dict__["compiled_block"] = torch.compile(vision_block, dynamic=False)
    log.info("compiled the token-wise parts of %d layers", len(model.decoder.layers))
