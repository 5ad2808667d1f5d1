"""Triton for `factors`: one program per row of channels, float32 inside."""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# Kernels are Triton's language, which has no types of Python's.
from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from spatial_ttt.model.kernels.sizes import next_power_of_2


@triton.jit
def _write_factors(
    both, e, lr, d_both, d_down, heads, length, width, stride_b, stride_h, stride_l, stride_i,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One token of one head; `both` holds gate k and, beside it, up k."""
    row = tl.program_id(0).to(tl.int64)
    token, head, batch = row % length, (row // length) % heads, row // (length * heads)
    rates = lr + batch * stride_b + head * stride_h + token * stride_l
    lr_gate = tl.load(rates).to(tl.float32)
    lr_down = tl.load(rates + stride_i).to(tl.float32)
    lr_up = tl.load(rates + 2 * stride_i).to(tl.float32)
    channel = tl.arange(0, BLOCK)
    mask = channel < width
    at = row * width + channel
    two = row * 2 * width + channel
    x = tl.load(both + two, mask=mask, other=0.0).to(tl.float32)
    y = tl.load(both + two + width, mask=mask, other=0.0).to(tl.float32)
    z = tl.load(e + at, mask=mask, other=0.0).to(tl.float32)
    s = tl.sigmoid(x)
    silu = x * s
    dtype = d_both.dtype.element_ty
    tl.store(d_both + two, (z * y * s * (1.0 + x * (1.0 - s)) * lr_gate).to(dtype), mask=mask)
    tl.store(d_both + two + width, (z * silu * lr_up).to(dtype), mask=mask)
    tl.store(d_down + at, (silu * y * lr_down).to(dtype), mask=mask)


def write_factors(both: Tensor, e: Tensor, lr: Tensor) -> tuple[Tensor, Tensor]:
    """What each token adds to the gradients besides its key or value: [B, H, L, 2 F] of gate and up, [B, H, L, F].

    `both` = gate k | up k [B, H, L, 2 F], e = down' v [B, H, L, F], lr [B, H, L, 3] (gate, down, up) of any strides.
    The results are put in the place of `both` and e, which are given up.
    """
    both, e = both.contiguous(), e.contiguous()
    batch, heads, length, width = e.shape
    _write_factors[(batch * heads * length,)](
        both, e, lr, both, e, heads, length, width, *lr.stride(),
        BLOCK=next_power_of_2(width), num_warps=4 if width >= 256 else 1,
    )  # fmt: skip
    return both, e
