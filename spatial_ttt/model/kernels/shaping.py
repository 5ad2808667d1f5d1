"""Streaming's token-wise steps in one pass each, where no gradients are asked for.

Training leaves these to torch (or its compiler), but for what `trained_heads` gives a backward pass; every function
names the plain code it stands for.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from spatial_ttt.model.kernels import resolve_backend


class HeadNorms(NamedTuple):
    """Weights of the per-head RMSNorms of queries and keys [Dh] and their epsilon."""

    query: Tensor
    key: Tensor
    eps: float


def applies(x: Tensor) -> bool:
    """These kernels may run on x: no gradients are wanted, and the backend resolves to Triton."""
    if torch.is_grad_enabled():
        return False
    return resolve_backend("shaping", x.device, x.dtype)[0] == "triton"


def heads(
    qkv: Tensor,
    rope: Tensor,
    norms: HeadNorms,
    kv_heads: int,
    scales: Tensor | None,
    room: int = 0,
    zeros: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """`Attention.heads` and `TTTAttention.shape`: norms, rotation and the fast branch's inputs.

    qkv [B, L, (H + 2 Hkv) Dh], rope [B, L, Dh] -> q [B, H, L, Dh], k and v [B, Hkv, L, Dh], and with
    `scales` [4, D] (of queries, their offset, of keys, their offset) the branch's [B, L, 3 H Dh]. Before k and v of
    each head there is free memory for `room` tokens; q, k and v have so many `zeros` more than L, at their end.
    """
    from spatial_ttt.model.kernels import shaping_triton as kernels

    return kernels.heads(qkv, rope, norms, kv_heads, scales, room, zeros)


def rates(raw: Tensor, offset: float, num_heads: int, has: tuple[bool, bool]) -> tuple[Tensor, ...]:
    """`TTTAttention.rates`: raw [B, L, (3..5) heads] -> lr float32 [B, L, 3 heads], momentum and gate [B, L, heads].

    softplus(x + offset), sigmoid, silu; `has` says whether momentum and gate are there (else they are one).
    """
    from spatial_ttt.model.kernels import shaping_triton as kernels

    return kernels.rates(raw, offset, num_heads, has)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`layers.RMSNorm` of [..., D]."""
    from spatial_ttt.model.kernels import shaping_triton as kernels

    return kernels.add_rms_norm(x, None, weight, eps)[1]


def add_rms_norm(
    x: Tensor, more: Tensor, weight: Tensor, eps: float, room: int = 0
) -> tuple[Tensor, Tensor]:
    """x + more, and its RMSNorm; [B, L, D] each. Before the sum of one row there is free memory for `room` tokens."""
    from spatial_ttt.model.kernels import shaping_triton as kernels

    return kernels.add_rms_norm(x, more, weight, eps, room)


def layer_norm(x: Tensor, late: Tensor | None, norm: Any) -> Tensor:
    """The LayerNorm, by the module `norm`, of x [S, P, D], which is dense, with a bias [D] (None: nothing) added.

    x itself stays without it; the sum is not rounded.
    """
    from spatial_ttt.model.kernels import shaping_triton as kernels

    return kernels.layer_norm(x, late, norm.weight, norm.bias, norm.eps)


def swiglu_halves(both: Tensor, out: Tensor | None = None) -> Tensor:
    """silu(first half) * second half of the last axis: [..., 2 F] -> [..., F], into `out` (contiguous) if given."""
    from spatial_ttt.model.kernels import shaping_triton as kernels

    return kernels.swiglu_halves(both, out)


def turn_patches(qkv: Tensor, cos: Tensor, sin: Tensor, num_heads: int, bias: Tensor) -> Tensor:
    """`vision._turn` of queries and keys and their bias, in place: qkv [S, P, 3 H Dh], cos, sin [P, Dh / 2].

    The bias is [3 H Dh]; values stay as they are, without theirs.
    """
    from spatial_ttt.model.kernels import shaping_triton as kernels

    return kernels.turn_patches(qkv, cos, sin, num_heads, bias)
