"""What a token brings along, in training: by the kernels that streams use, with backward passes of their own.

Projections and the rates before their activations are saved, and nothing else; norms are made again.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spatial_ttt.model.kernels import resolve_backend
from spatial_ttt.model.kernels.shaping import HeadNorms


def applies(x: Tensor, weight: Tensor) -> bool:
    """These kernels may run on x, normed by `weight`: gradients are wanted, and the backend resolves to Triton."""
    if not torch.is_grad_enabled():
        return False
    problem = None if weight.dtype == x.dtype else "norms are in another precision"
    return resolve_backend("trained_heads", x.device, x.dtype, problem)[0] == "triton"


def heads(
    qkv: Tensor, rope: Tensor, norms: HeadNorms, kv_heads: int, scales: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """As `shaping.heads`, with gradients but of `rope`, without room and zeros; v is a view of qkv."""
    weights = (norms.query, norms.key, scales)
    made = _Heads.apply(qkv, rope, *weights, kv_heads, norms.eps)
    return cast("tuple[Tensor, Tensor, Tensor, Tensor | None]", made)


def rates(raw: Tensor, offset: float, num_heads: int, has: tuple[bool, bool]) -> tuple[Tensor, ...]:
    """As `shaping.rates`, with gradients."""
    return cast("tuple[Tensor, ...]", _Rates.apply(raw, offset, num_heads, has))


class _Heads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        rope: Tensor,
        q_weight: Tensor,
        k_weight: Tensor,
        scales: Tensor | None,
        kv_heads: int,
        eps: float,
    ) -> tuple[Tensor | None, ...]:
        from spatial_ttt.model.kernels import shaping_triton as kernels

        ctx.save_for_backward(qkv, rope, q_weight, k_weight, scales)
        ctx.kv_heads, ctx.eps = kv_heads, eps
        norms = HeadNorms(q_weight, k_weight, eps)
        return kernels.heads(qkv, rope, norms, kv_heads, scales, 0, 0, copies_values=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        from spatial_ttt.model.kernels import trained_heads_triton as kernels

        qkv, rope, q_weight, k_weight, scales = ctx.saved_tensors
        norms = HeadNorms(q_weight, k_weight, ctx.eps)
        d_qkv, *rest = kernels.heads_backward(grads, qkv, rope, norms, ctx.kv_heads, scales)
        return d_qkv, None, *rest, None, None


class _Rates(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, raw: Tensor, offset: float, num_heads: int, has: tuple[bool, bool]
    ) -> tuple[Tensor, ...]:
        from spatial_ttt.model.kernels import shaping_triton as kernels

        ctx.save_for_backward(raw)
        ctx.how = offset, num_heads, has
        return kernels.rates(raw, offset, num_heads, has)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from spatial_ttt.model.kernels import trained_heads_triton as kernels

        (raw,) = ctx.saved_tensors
        return kernels.rates_backward(grads, raw, *ctx.how), None, None, None
