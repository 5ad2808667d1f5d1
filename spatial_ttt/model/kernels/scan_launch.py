"""Buffers and launches of the scan kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spatial_ttt.model.kernels import scan_triton
from spatial_ttt.model.kernels.newton_schulz_triton import STEPS
from spatial_ttt.model.kernels.products import product_options, triton_dtype

if TYPE_CHECKING:
    from spatial_ttt.model.kernels.scan import Rule


def forward(
    inputs: tuple[Tensor, ...], first: Tensor, momentum: Tensor | None, rule: Rule
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs [B, H, L, D], `totals` [B, H, n + 1, 3, D, D] and `writes` [B, H, n or n + 1, 3, D, D].

    `inputs`: query, key, value [B, H, L, D], lr [B, H, L, 3], beta [B, H, n], norms [H, 3, D], all contiguous.
    """
    query, beta = inputs[0], inputs[4]
    batch, heads, length, size = query.shape
    num_writes = beta.shape[-1]
    shape = (3, size, size)
    totals = query.new_empty(batch, heads, num_writes + 1, *shape, dtype=torch.float32)
    totals[:, :, 0] = first
    slots = num_writes + rule.has_momentum
    writes = query.new_empty(batch, heads, slots, *shape, dtype=torch.float32)
    if momentum is not None:
        writes[:, :, 0] = momentum
    out = query.new_empty(batch, length, heads, size).transpose(1, 2)
    numbers = (
        length,
        num_writes,
        rule.chunk_size,
        heads,
        int(rule.has_momentum),
        int(rule.is_fresh),
    )
    scan_triton.forward[(batch * heads,)](
        *inputs, totals, writes, out, *numbers, **_options(query, rule, FORWARD_TILE)
    )
    return out, totals, writes


def backward(
    saved: tuple[Tensor, ...],
    upstream: tuple[Tensor | None, Tensor | None, Tensor | None],
    rule: Rule,
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Gradients of query, key, value, lr, beta, norms, first and momentum."""
    query, key, value, lr, beta, norms, totals, _ = saved
    batch, heads, length, size = query.shape
    num_writes = beta.shape[-1]
    d_out, d_last_total, d_last_write = upstream
    rows = query.new_zeros(batch, heads, length, size) if d_out is None else d_out
    rows = rows.transpose(1, 2).contiguous()
    d_query, d_key, d_value, d_lr = (torch.empty_like(x) for x in (query, key, value, lr))
    d_beta = torch.zeros_like(beta)
    d_norms = norms.new_zeros(batch, *norms.shape)
    d_total, d_write = (_carry(x, totals) for x in (d_last_total, d_last_write))
    d_grad = torch.empty_like(d_total, dtype=query.dtype)
    scratch = query.new_empty(batch, heads, STEPS, size, size, dtype=rule.polish_dtype)
    numbers = (
        length,
        num_writes,
        rule.chunk_size,
        heads,
        int(rule.has_momentum),
        int(rule.is_fresh),
    )
    scan_triton.backward[(batch * heads,)](
        *saved, rows, d_query, d_key, d_value, d_lr, d_beta, d_norms, d_total, d_write, d_grad, scratch,
        *numbers, **_options(query, rule, BACKWARD_TILE),
    )  # fmt: skip
    d_momentum = d_write if rule.has_momentum else None
    return (d_query, d_key, d_value, d_lr, d_beta, d_norms.sum(0), d_total), d_momentum


def _carry(grad: Tensor | None, totals: Tensor) -> Tensor:
    """A block to carry gradients in, [B, H, 3, D, D]; the kernel writes over it."""
    if grad is None:
        return torch.zeros_like(totals[:, :, 0], memory_format=torch.contiguous_format)
    return grad.to(torch.float32).clone(memory_format=torch.contiguous_format)


FORWARD_TILE = (32, 4)
BACKWARD_TILE = (32, 8)
"""Tokens per tile and warps per program: more spill (a program's tiles fill the register file)."""


def _options(query: Tensor, rule: Rule, tile: tuple[int, int]) -> dict[str, Any]:
    return {
        "D": query.shape[-1],
        "TOKENS": tile[0],
        "MUON": rule.use_muon,
        "MOMENTUM": rule.use_momentum,
        "PRE": rule.is_pre_norm,
        "POLISH": triton_dtype(rule.polish_dtype),
        "num_warps": tile[1],
        **product_options(query.dtype),
    }
