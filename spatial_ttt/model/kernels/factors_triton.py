"""Triton for `factors`: one program per row of channels, float32 inside."""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# Kernels are Triton's language, which has no types of Python's.
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _swiglu(a, b, out, size, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    x = tl.load(a + at, mask=mask, other=0.0).to(tl.float32)
    y = tl.load(b + at, mask=mask, other=0.0).to(tl.float32)
    # Rounded where the reference rounds: after silu.
    gated = (x * tl.sigmoid(x)).to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + at, (gated * y).to(out.dtype.element_ty), mask=mask)


@triton.jit
def _write_factors(
    a, u, e, lr, d_gate, d_up, d_down, heads, length, width, stride_b, stride_h, stride_l, stride_i,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    token, head, batch = row % length, (row // length) % heads, row // (length * heads)
    rates = lr + batch * stride_b + head * stride_h + token * stride_l
    lr_gate = tl.load(rates).to(tl.float32)
    lr_down = tl.load(rates + stride_i).to(tl.float32)
    lr_up = tl.load(rates + 2 * stride_i).to(tl.float32)
    channel = tl.arange(0, BLOCK)
    mask = channel < width
    at = row * width + channel
    x = tl.load(a + at, mask=mask, other=0.0).to(tl.float32)
    y = tl.load(u + at, mask=mask, other=0.0).to(tl.float32)
    z = tl.load(e + at, mask=mask, other=0.0).to(tl.float32)
    s = tl.sigmoid(x)
    silu = x * s
    dtype = d_gate.dtype.element_ty
    tl.store(d_gate + at, (z * y * s * (1.0 + x * (1.0 - s)) * lr_gate).to(dtype), mask=mask)
    tl.store(d_up + at, (z * silu * lr_up).to(dtype), mask=mask)
    tl.store(d_down + at, (silu * y * lr_down).to(dtype), mask=mask)


def swiglu(a: Tensor, b: Tensor) -> Tensor:
    """silu(a) * b of two contiguous tensors."""
    out = torch.empty_like(a)
    _swiglu[(triton.cdiv(a.numel(), 1024),)](a, b, out, a.numel(), BLOCK=1024, num_warps=4)
    return out


def write_factors(a: Tensor, u: Tensor, e: Tensor, lr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Three factors from contiguous a, u, e [B, H, L, F]."""
    batch, heads, length, width = a.shape
    out = tuple(torch.empty_like(a) for _ in range(3))
    _write_factors[(batch * heads * length,)](
        a,
        u,
        e,
        lr,
        *out,
        heads,
        length,
        width,
        *lr.stride(),
        BLOCK=triton.next_power_of_2(width),
        num_warps=4 if width >= 256 else 1,
    )
    return out[0], out[1], out[2]
