"""What a token brings along in a training step of the 2B model: the compiler's code beside our kernels.

Microseconds of one layer, forward and backward apart, the host ahead of the device.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
import torch.fx.experimental._config as fx_config
from torch import Tensor

from benchmarks.kernel_cases import Bench, relative_error
from spatial_ttt.engine import _TrainedParts
from spatial_ttt.model.configuration import paper_ttt_config
from spatial_ttt.model.kernels import request_backend
from spatial_ttt.model.state import Raw
from spatial_ttt.model.ttt import TTTAttention

AHEAD = 4_000_000  # cycles that the device sleeps while the host launches
REPEATS = 30
TILES = (16, 8)  # tokens of a program of the backward pass

Made = tuple[Tensor, ...]


def heads_cases(bench: Bench) -> None:
    """Heads of a TTT layer and of an anchor; 22,528 tokens in two rows, as a pack of two videos has them."""
    fx_config.use_duck_shape = False
    torch._dynamo.config.specialize_int = torch._dynamo.config.specialize_float = True
    attention = _attention(bench)
    heads, kv_heads, dim = attention.sizes
    batch, length = (2, 24) if bench.tiny else (2, 11264)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, device=bench.device).to(torch.bfloat16)

    width = (heads + 2 * kv_heads) * dim
    rates = sum(layer.out_features for layer in attention.rate_layers)
    leaves = [random(batch, length, width), random(batch, length, rates + 4)]
    rope = random(batch, length, dim)
    parts = _TrainedParts("aot_eager" if bench.tiny else "inductor")

    def ttt(qkv: Tensor, raw: Tensor) -> Made:
        made = parts.shape(attention, Raw(qkv, raw[..., :rates]), rope)
        return tuple(x for x in made if isinstance(x, Tensor))

    def anchor(qkv: Tensor, _: Tensor) -> Made:
        made: Made = parts.heads(attention, qkv, rope)
        return made

    for name, function in (("ttt layer", ttt), ("anchor", anchor)):
        _compare(bench, f"{name} {batch}x{length}", function, leaves, list(attention.parameters()))


def _attention(bench: Bench) -> TTTAttention:
    """Of the 2B model, or a small one."""
    heads, dim = (4, 16) if bench.tiny else (16, 128)
    text: Any = SimpleNamespace(
        hidden_size=heads * dim, num_attention_heads=heads, num_key_value_heads=heads // 2, head_dim=dim,
        attention_bias=False, rms_norm_eps=1e-6,
    )  # fmt: skip
    made = TTTAttention(text, paper_ttt_config(num_fast_heads=4))
    return made.to(bench.device, torch.bfloat16)


def _compare(
    bench: Bench,
    case: str,
    function: Callable[[Tensor, Tensor], Made],
    inputs: list[Tensor],
    weights: list[Tensor],
) -> None:
    """Both variants with the same gradients; of ours how far its results are from the compiler's."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    upstream = [torch.randn(x.shape, device=x.device).to(x.dtype) for x in function(*leaves)]
    wanted: list[Tensor] = []

    def work(backend: str) -> dict[str, Any]:
        with request_backend(backend):
            made = function(*leaves)
            grads = torch.autograd.grad(made, [*leaves, *weights], upstream, allow_unused=True)
            results = [*(x.detach() for x in made), *(x for x in grads if x is not None)]
            del made, grads
            figures = _microseconds(bench, function, leaves, weights, upstream)
        if not wanted:
            wanted.extend(results)
        errors = [relative_error(a, b.double()) for a, b in zip(results, wanted, strict=True)]
        figures["largest_difference"] = max(errors)
        return figures | ({"wrong": True} if max(errors) > 2e-2 else {})

    bench.attempt("heads", case, "compiled", lambda: work("reference"))
    if not bench.has_triton:
        return
    from spatial_ttt.model.kernels import trained_heads_triton as kernels

    for kernels._TOKENS in TILES:
        bench.attempt("heads", case, f"triton {kernels._TOKENS}", lambda: work("auto"))
    kernels._TOKENS = TILES[0]


def _microseconds(
    bench: Bench,
    function: Callable[[Tensor, Tensor], Made],
    leaves: list[Tensor],
    weights: list[Tensor],
    upstream: list[Tensor],
) -> dict[str, Any]:
    """Medians on the device; nothing on a CPU."""
    if bench.device.type != "cuda":
        return {}
    forward, backward = [], []
    for _ in range(REPEATS):
        begin, middle, end = (torch.cuda.Event(enable_timing=True) for _ in range(3))
        torch.cuda._sleep(AHEAD)
        begin.record()
        made = function(*leaves)
        middle.record()
        torch.autograd.grad(made, [*leaves, *weights], upstream, allow_unused=True)
        end.record()
        end.synchronize()
        forward.append(1e3 * begin.elapsed_time(middle))
        backward.append(1e3 * middle.elapsed_time(end))
    return {"forward_us": median(forward), "backward_us": median(backward)}
