"""The elementwise part of a write, one pass over memory; for streaming, where no gradients are asked for."""

from __future__ import annotations

from torch import Tensor


def swiglu(a: Tensor, b: Tensor) -> Tensor:
    """silu(a) * b, any shape, contiguous, in a's dtype."""
    from spatial_ttt.model.kernels import factors_triton as kernels

    return kernels.swiglu(a.contiguous(), b.contiguous())


def write_factors(a: Tensor, u: Tensor, e: Tensor, lr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The token factors of the gradients of gate, up and down (see `fast_weights.gradient`).

    a, u, e [B, H, L, F]; lr [B, H, L, 3] (gate, down, up) of any strides. Returns three of a's shape and dtype.
    """
    from spatial_ttt.model.kernels import factors_triton as kernels

    return kernels.write_factors(a.contiguous(), u.contiguous(), e.contiguous(), lr)
