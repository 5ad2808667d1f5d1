"""Making a model fast on a GPU: token-wise parts compiled, everything else as it is.

What depends on one token only (projections, norms, rotation, MLP, vision blocks) is the same code for
every layer and piece, so each part is compiled once and shared. Attention, convolution and the fast
weights have kernels of their own and choose them by themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import MethodType
from typing import Any, cast

import torch
from torch import Tensor, nn

from spatial_ttt.errors import ConfigError
from spatial_ttt.model.decoder import DecoderLayer, feed_forward
from spatial_ttt.model.layers import RMSNorm, rms_norm, rotate
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.ttt import Attention, TTTAttention, normed_heads
from spatial_ttt.model.vision import vision_block

log = logging.getLogger(__name__)

Function = Callable[..., Any]

PARTS: tuple[tuple[type, str], ...] = (
    (DecoderLayer, "feed_forward"),
    (TTTAttention, "shape"),
    (Attention, "heads"),
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
            # A TTT layer shapes its own heads: only anchors need theirs compiled.
            if isinstance(module, owner) and not (
                name == "heads" and isinstance(module, TTTAttention)
            ):
                module.__dict__[name] = MethodType(compiled, module)
    for layer in model.decoder.layers:
        norm = cast(DecoderLayer, layer).input_layernorm
        norm.compile(dynamic=True)
    visual = cast(Any, model.model.visual)
    visual.__dict__["compiled_block"] = torch.compile(vision_block, dynamic=False)
    log.info("compiled the token-wise parts of %d layers", len(model.decoder.layers))


def compile_for_training(
    model: SpatialTTTForConditionalGeneration, backend: str = "inductor"
) -> None:
    """Compile forward and backward passes of the token-wise parts in place, on any device.

    Each part is one function of modules and tensors, so layers share its code; lengths may vary. Without
    gradients (probes) the plain parts run: a second compilation would cost more than it saves.
    """
    dynamo = torch._dynamo.config
    dynamo.recompile_limit = max(64, dynamo.recompile_limit)
    dynamo.accumulated_recompile_limit = max(1024, dynamo.accumulated_recompile_limit)
    parts = _TrainedParts(backend)
    for module in model.decoder.modules():
        if isinstance(module, DecoderLayer):
            _use(module, "feed_forward", parts.feed_forward)
            _use(module.input_layernorm, "forward", parts.norm)
        elif isinstance(module, Attention):
            _use(module, "heads", parts.heads)
            if isinstance(module, TTTAttention):
                _use(module, "shape", parts.shape)
    _use(model.decoder.norm, "forward", parts.norm)
    visual = cast(Any, model.model.visual)
    visual.__dict__["compiled_block"] = _trained(vision_block, parts.block)
    log.info("token-wise parts of %d layers will be compiled", len(model.decoder.layers))


class _TrainedParts:
    """Methods of layers, bodies compiled once for all of them."""

    def __init__(self, backend: str) -> None:
        def compiled(function: Function) -> Function:
            return torch.compile(function, dynamic=True, fullgraph=True, backend=backend)

        compiled_feed_forward = compiled(feed_forward)
        compiled_norm, compiled_heads = compiled(rms_norm), compiled(_heads)
        self.shape = compiled(TTTAttention.shape)
        self.block = compiled(vision_block)

        def run_feed_forward(layer: DecoderLayer, hidden: Tensor, mixed: Tensor) -> Any:
            return compiled_feed_forward(layer.post_attention_layernorm, layer.mlp, hidden, mixed)

        def run_norm(norm: RMSNorm, x: Tensor) -> Any:
            return compiled_norm(x, norm.weight, norm.eps)

        def run_heads(attention: Attention, qkv: Tensor, rope: Tensor) -> Any:
            return compiled_heads(attention.q_norm, attention.k_norm, qkv, rope, attention.sizes)

        self.feed_forward, self.norm, self.heads = run_feed_forward, run_norm, run_heads


def _use(module: nn.Module, name: str, compiled: Function) -> None:
    """Give one module a method that runs compiled while gradients are wanted."""
    plain = getattr(type(module), name)
    module.__dict__[name] = MethodType(_trained(plain, compiled), module)


def _trained(plain: Function, compiled: Function) -> Function:
    def run(*arguments: Any) -> Any:
        return (compiled if torch.is_grad_enabled() else plain)(*arguments)

    return run


def _heads(
    q_norm: nn.Module, k_norm: nn.Module, qkv: Tensor, rope: Tensor, sizes: tuple[int, int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """`Attention.heads` without its module, so that anchors and TTT layers share its code."""
    q, k, v = (t.transpose(1, 2) for t in normed_heads(q_norm, k_norm, qkv, sizes))
    return rotate(q, rope), rotate(k, rope), v
