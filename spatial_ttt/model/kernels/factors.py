"""Reads and writes of fast weights in few launches; for streaming, where no gradients are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def read(weights: Sequence[Tensor], query: Tensor) -> Tensor:
    """`fast_weights.apply` with gate and up in one product: query [B, H, L, D] -> [B, H, L, D]."""
    first, second = _low(weights, query.dtype)
    return _read(first, second, query)


def write(weights: Sequence[Tensor], key: Tensor, value: Tensor, lr: Tensor) -> tuple[Tensor, ...]:
    """`fast_weights.gradient` with gate and up in one product; lr [B, H, L, 3]; three of [B, H, F, D] float32."""
    return _write(*_low(weights, key.dtype), key, value, lr)


def read_and_write(
    weights: Sequence[Tensor], query: Tensor, key: Tensor, value: Tensor, lr: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Both, rounding the weights once."""
    first, second = _low(weights, query.dtype)
    return _read(first, second, query), _write(first, second, key, value, lr)


def _low(weights: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Gate above up [B, H, 2 F, D], and down [B, H, D, F], rounded."""
    gate, up, down = weights
    both = gate.new_empty(*gate.shape[:2], 2, *gate.shape[2:], dtype=dtype)
    both[:, :, 0], both[:, :, 1] = gate, up
    return both.flatten(2, 3), down.to(dtype)


def _read(first: Tensor, second: Tensor, query: Tensor) -> Tensor:
    from spatial_ttt.model.kernels import shaping

    return shaping.swiglu_halves(query @ first.mT) @ second.mT


def _write(
    first: Tensor, second: Tensor, key: Tensor, value: Tensor, lr: Tensor
) -> tuple[Tensor, ...]:
    from spatial_ttt.model.kernels import factors_triton as kernels

    both, down = kernels.write_factors(key @ first.mT, value @ second, lr)
    sums = _product(both.mT, key).unflatten(2, (2, -1))
    return sums[:, :, 0], sums[:, :, 1], _product(value.mT, down)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b [B, H, N, M] in float32; half-precision operands are not rounded again where the device allows it."""
    if a.device.type != "cuda" or a.dtype == torch.float32:
        return (a @ b).float()
    found = torch.bmm(a.flatten(0, 1), b.flatten(0, 1), out_dtype=torch.float32)
    return found.unflatten(0, a.shape[:2])
