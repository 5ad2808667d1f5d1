"""The fast network of any width: products by the library, everything between them in one pass each.

Gate and up share a product. Both functions save their inputs only and make the rest again in the backward pass.
Shapes as in `fast_weights`: weights [B, H, F, D] (down: [B, H, D, F]), tokens [B, H, L, D].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def apply(gate: Tensor, up: Tensor, down: Tensor, query: Tensor) -> Tensor:
    """down [ silu(gate q) * (up q) ], in the query's dtype."""
    out: Tensor = _Apply.apply(gate, up, down, query)
    return out


def gradient(
    gate: Tensor, up: Tensor, down: Tensor, key: Tensor, value: Tensor, lr: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What one write adds to gate, up and down, in the weights' dtype; lr [B, H, L, 3] of gate, down, up."""
    for_gate, for_up, for_down = _Gradient.apply(gate, up, down, key, value, lr)
    return for_gate, for_up, for_down


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, down: Tensor, query: Tensor) -> Tensor:
        from spatial_ttt.model.kernels import network_triton as kernels

        ctx.save_for_backward(gate, up, down, query)
        both = query @ _joined(gate, up, query.dtype).mT  # [B, H, L, 2 F]
        return kernels.hidden(both) @ down.to(query.dtype).mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        from spatial_ttt.model.kernels import network_triton as kernels

        gate, up, down, query = ctx.saved_tensors
        joined = _joined(gate, up, query.dtype)
        hidden, d_both = kernels.hidden_backward(query @ joined.mT, grad @ down.to(query.dtype))
        d_gate, d_up = (d_both.mT @ query).to(gate.dtype).chunk(2, dim=-2)
        return d_gate, d_up, (grad.mT @ hidden).to(down.dtype), d_both @ joined


class _Gradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gate: Tensor, up: Tensor, down: Tensor, key: Tensor, value: Tensor, lr: Tensor
    ) -> tuple[Tensor, ...]:
        from spatial_ttt.model.kernels import network_triton as kernels

        ctx.save_for_backward(gate, up, down, key, value, lr)
        both = key @ _joined(gate, up, key.dtype).mT
        rows, rows_down = kernels.rows(both, value @ down.to(key.dtype), lr)
        for_gate, for_up = (rows.mT @ key).to(gate.dtype).chunk(2, dim=-2)
        return for_gate, for_up, (value.mT @ rows_down).to(down.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_gate: Tensor, d_up: Tensor, d_down: Tensor) -> tuple[Tensor, ...]:
        from spatial_ttt.model.kernels import network_triton as kernels

        gate, up, down, key, value, lr = ctx.saved_tensors
        dtype = key.dtype
        joined, narrow = _joined(gate, up, dtype), down.to(dtype)
        d_joined, d_narrow = _joined(d_gate, d_up, dtype), d_down.to(dtype)
        found = kernels.rows_backward(
            (key @ joined.mT, value @ narrow, lr), (key @ d_joined.mT, value @ d_narrow)
        )
        d_key = found.rows @ d_joined + found.d_both @ joined
        d_value = found.rows_down @ d_narrow.mT + found.d_error @ narrow.mT
        for_gate, for_up = (found.d_both.mT @ key).to(gate.dtype).chunk(2, dim=-2)
        for_down = (value.mT @ found.d_error).to(down.dtype)
        return for_gate, for_up, for_down, d_key, d_value, found.d_lr.to(lr.dtype)


def _joined(gate: Tensor, up: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, H, 2 F, D] in the products' dtype."""
    return torch.cat((gate.to(dtype), up.to(dtype)), dim=-2)
