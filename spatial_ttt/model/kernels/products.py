"""Matrix products and small maths shared by the Triton kernels.

`ROUND` is the operands' precision (bfloat16 in production). float32 operands go through three tf32
products, exact to about 1e-6. The interpreter has no bfloat16 product, so there (`WIDE`) operands
are rounded and widened again.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# Kernels are Triton's language, which has no types of Python's.
from __future__ import annotations

import torch
import triton
import triton.language as tl

from spatial_ttt.model.kernels import interpreting


def triton_dtype(dtype: torch.dtype) -> tl.dtype:
    """Triton's name of a torch dtype."""
    return {torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}[dtype]


def constant(value: float) -> float | tl.constexpr:
    """A module constant as kernels may read it: wrapped for the compiler, bare for the interpreter."""
    return value if interpreting() else tl.constexpr(value)


def product_options(dtype: torch.dtype) -> dict[str, object]:
    """The constexpr arguments of every kernel that multiplies matrices."""
    return {"ROUND": triton_dtype(dtype), "WIDE": interpreting()}


def follows_early(device: torch.device) -> bool:
    """A kernel may be put on the device before the one before it is done: Hopper and later."""
    on_gpu = device.type == "cuda" and not interpreting()
    return on_gpu and torch.cuda.get_device_capability(device) >= (9, 0)


@triton.jit
def follow(EARLY: tl.constexpr):
    """The first line of a kernel that is launched early (`launch_pdl`): wait for what comes before it in the stream.

    What comes after may be put on the device from here on.
    """
    if EARLY:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def product(a, b, ROUND: tl.constexpr, WIDE: tl.constexpr):
    """a @ b with operands rounded to ROUND and float32 sums."""
    if WIDE:
        return tl.dot(
            a.to(ROUND).to(tl.float32), b.to(ROUND).to(tl.float32), input_precision="ieee"
        )
    elif tl.float32 == ROUND:
        return tl.dot(a.to(ROUND), b.to(ROUND), input_precision="tf32x3")
    else:
        return tl.dot(a.to(ROUND), b.to(ROUND))


@triton.jit
def total(x):
    """Sum of all entries of a matrix."""
    return tl.sum(tl.sum(x, axis=1), axis=0)
