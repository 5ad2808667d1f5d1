"""Training steps made fast: token-wise parts compiled, steps of Newton-Schulz kept, everything else as it is.

What depends on one token only (projections, norms, rotation, MLP, vision blocks) is the same code for
every layer and piece, so each part is compiled once and shared. Attention, convolution and the fast
weights have kernels of their own and choose them by themselves. Inference needs no compiler: see
`spatial_ttt.inference.prepare`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import MethodType
from typing import Any, cast

import torch
import torch._inductor
import torch.fx.experimental._config as fx_config
from torch import Tensor, nn

from spatial_ttt.errors import ConfigError
from spatial_ttt.model.anchor import Attention, normed_heads
from spatial_ttt.model.decoder import DecoderLayer, feed_forward
from spatial_ttt.model.kernels import trained_heads
from spatial_ttt.model.layers import RMSNorm, rms_norm, rotate, taken
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.state import Projected, Raw
from spatial_ttt.model.ttt import TTTAttention
from spatial_ttt.model.vision import vision_block

log = logging.getLogger(__name__)

Function = Callable[..., Any]


def compile_for_training(
    model: SpatialTTTForConditionalGeneration, backend: str | Function = "inductor"
) -> None:
    """Compile forward and backward passes of the token-wise parts in place, on any device.

    Each part is one function of modules and tensors, so layers share its code; batches and lengths may vary.
    Without gradients (probes, a frozen tower) the plain parts run: a second compilation would cost more than
    it saves. TORCHINDUCTOR_CACHE_DIR and TRITON_CACHE_DIR keep the code for later runs.
    """
    # Else a batch that happens to be as large as a head is taken for one, and another batch compiled anew.
    fx_config.use_duck_shape = False
    dynamo = torch._dynamo.config
    # Of sharded modules the compiler takes numbers of heads and channels for values that may change, and divides by
    # them for every element.
    dynamo.specialize_int = dynamo.specialize_float = True
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


def keep_newton_schulz(model: SpatialTTTForConditionalGeneration) -> None:
    """Keep the steps of Newton-Schulz for the backward pass, which else makes them again: memory for time.

    For wide fast weights on a GPU (`model.kernels.wide_scan`). Narrow heads, which have a kernel of their own, and the
    plain operations stay as they are.
    """
    for module in model.decoder.modules():
        if isinstance(module, TTTAttention):
            module.keeps_newton_schulz = True


def _options(backend: str | Function) -> dict[str, Any]:
    """Of the compiler: nothing that looks at how many tokens there are.

    Fusing reductions of rows and columns has thresholds on both; steps with and without video, or of a few
    more questions, lie on either side of them, and every side would be compiled.
    """
    wanted: dict[str, Any] = {"triton.mix_order_reduction": False}
    if backend != "inductor":
        return {}
    return {name: value for name, value in wanted.items() if name in torch._inductor.list_options()}


class _TrainedParts:
    """Methods of layers, bodies compiled once for all of them."""

    def __init__(self, backend: str | Function) -> None:
        how: dict[str, Any] = {"dynamic": True, "fullgraph": True, "backend": backend}
        options = _options(backend)

        def compiled(function: Function) -> Function:
            return torch.compile(function, options=options or None, **how)

        compiled_feed_forward = compiled(feed_forward)
        compiled_norm, compiled_heads = compiled(rms_norm), compiled(_heads)
        compiled_shape = compiled(_shape)
        self.block = compiled(vision_block)

        def run_feed_forward(layer: DecoderLayer, hidden: Tensor, mixed: Tensor) -> Any:
            return compiled_feed_forward(layer.post_attention_layernorm, layer.mlp, hidden, mixed)

        def run_norm(norm: RMSNorm, x: Tensor) -> Any:
            return compiled_norm(x, norm.weight, norm.eps)

        def run_heads(attention: Attention, qkv: Tensor, rope: Tensor, zeros: int = 0) -> Any:
            assert not zeros, "nobody asks for any where gradients are wanted"
            if trained_heads.applies(qkv, attention.q_norm.weight):
                return Attention.heads(attention, qkv, rope)
            return compiled_heads(attention.q_norm, attention.k_norm, qkv, rope, attention.sizes)

        def run_shape(attention: TTTAttention, raw: Raw, rope: Tensor, room: int = 0) -> Projected:
            assert not room, "nobody makes any where gradients are wanted"
            if trained_heads.applies(raw.qkv, attention.q_norm.weight):
                return TTTAttention.shape(attention, raw, rope)
            made: Projected = compiled_shape(attention, raw, rope)
            return made

        self.feed_forward, self.norm = run_feed_forward, run_norm
        self.heads, self.shape = run_heads, run_shape


def _use(module: nn.Module, name: str, compiled: Function) -> None:
    """Give one module a method that runs compiled while gradients are wanted."""
    plain = getattr(type(module), name)
    module.__dict__[name] = MethodType(_trained(plain, compiled), module)


def _trained(plain: Function, compiled: Function) -> Function:
    def run(*arguments: Any) -> Any:
        if not torch.is_grad_enabled():
            return plain(*arguments)
        return compiled(*(_unlinked(taken(x)) for x in arguments))

    return run


def _unlinked(x: Any) -> Any:
    """`x` as a tensor of its own: compiled code would be for views of tensors of one shape, or for no views."""
    if isinstance(x, Raw):
        return Raw(*(_unlinked(tensor) for tensor in x))
    if isinstance(x, Tensor) and x._is_view():
        return torch.ops.aten._unsafe_view(x, x.shape)  # the same memory
    return x


def _heads(
    q_norm: nn.Module, k_norm: nn.Module, qkv: Tensor, rope: Tensor, sizes: tuple[int, int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """`Attention.heads` without its module, so that anchors and TTT layers share its code."""
    heads, kv_heads, head_dim = sizes
    qkv, rope = _wide(qkv, (heads + 2 * kv_heads) * head_dim), _wide(rope, head_dim)
    q, k, v = (t.transpose(1, 2) for t in normed_heads(q_norm, k_norm, qkv, sizes))
    return rotate(q, rope), rotate(k, rope), v


def _shape(attention: TTTAttention, raw: Raw, rope: Tensor) -> Projected:
    """`TTTAttention.plain_shape` of inputs of known widths."""
    heads, kv_heads, head_dim = attention.sizes
    qkv = _wide(raw.qkv, (heads + 2 * kv_heads) * head_dim)
    rates = _wide(raw.rates, sum(layer.out_features for layer in attention.rate_layers))
    return attention.plain_shape(Raw(qkv, rates), _wide(rope, head_dim))


def _wide(x: Tensor, width: int) -> Tensor:
    """`x`, of which the compiler now knows the last size: rows of known length make better code."""
    if x.shape[-1] != width:
        raise ConfigError(f"rows of {width} numbers were expected, got {x.shape[-1]}")
    return x
