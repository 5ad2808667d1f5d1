"""What surrounds the scan, fused: tokens to per-head inputs, and per-head outputs to the layer's sum.

Both save their inputs only and make the rest again in the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def prepare(fast: Tensor, rope: Tensor, dim: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """silu, unit length, rotation: fast [B, L, 3 * H * D] -> query, key, value [B, H, L, D].

    `rope` is [B, L, head_dim] (cos and sin side by side), which turns the first head_dim of D channels; a value
    has only silu.
    """
    if not torch.is_grad_enabled():
        from spatial_ttt.model.kernels import mixing_triton as kernels

        query, key, value = kernels.prepare(fast, rope, dim, eps)
    else:
        query, key, value = _Prepare.apply(fast, rope, dim, eps)
    return query, key, value


def prepare_queries(fast: Tensor, rope: Tensor, eps: float, out: Tensor) -> None:
    """The queries of `prepare`, without gradients, into `out` [B, H, L, D], dense in its last axis."""
    from spatial_ttt.model.kernels import mixing_triton as kernels

    kernels.prepare(fast, rope, out.shape[-1], eps, out[None])


def queries_of(fast: Tensor, dim: int) -> Tensor:
    """The queries [B, H, L, D] where they lie among fast [B, L, 3 * H * D]."""
    return fast.unflatten(-1, (3, -1, dim))[:, :, 0].transpose(1, 2)


def lay(
    fast: Tensor,
    rope: Tensor,
    rates: tuple[Tensor, Tensor],
    to: tuple[Tensor, Tensor, Tensor],
    count: int,
    eps: float,
    *,
    has_past: bool,
) -> None:
    """Keys and values of `prepare`, learning rates lr [B, H, L, 3] and the sum of momentum [B, H, L], put in places.

    These are `to`: [2, B, H, R, D] and [B, H, R, 3], whose beginnings are filled, and [B, H] float32, to which the sum
    is added if it `has_past`; all dense. Learning rates are zero from L to `count`.
    """
    from spatial_ttt.model.kernels import mixing_triton as kernels

    kernels.lay(fast, rope, rates, to, count, eps, has_past)


def combine(attended: Tensor, read: Tensor, weight: Tensor, gate: Tensor, eps: float) -> Tensor:
    """attended + RMSNorm(read) * gate: [B, L, H * D], [B, H, L, D], [D], [B, L, H] -> [B, L, H * D]."""
    if not torch.is_grad_enabled():
        from spatial_ttt.model.kernels import mixing_triton as kernels

        return kernels.combine(attended, read, weight, gate, eps)
    out: Tensor = _Combine.apply(attended, read, weight, gate, eps)
    return out


class _Prepare(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, fast: Tensor, rope: Tensor, dim: int, eps: float) -> tuple[Tensor, ...]:
        from spatial_ttt.model.kernels import mixing_triton as kernels

        ctx.save_for_backward(fast, rope)
        ctx.dim, ctx.eps = dim, eps
        return kernels.prepare(fast, rope, dim, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        from spatial_ttt.model.kernels import mixing_triton as kernels

        fast, rope = ctx.saved_tensors
        return kernels.prepare_backward(grads, fast, rope, ctx.dim, ctx.eps), None, None, None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, attended: Tensor, read: Tensor, weight: Tensor, gate: Tensor, eps: float
    ) -> Tensor:
        from spatial_ttt.model.kernels import mixing_triton as kernels

        ctx.save_for_backward(read, weight, gate)
        ctx.eps = eps
        return kernels.combine(attended, read, weight, gate, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        from spatial_ttt.model.kernels import mixing_triton as kernels

        read, weight, gate = ctx.saved_tensors
        return grad, *kernels.combine_backward(grad, read, weight, gate, ctx.eps), None
