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
