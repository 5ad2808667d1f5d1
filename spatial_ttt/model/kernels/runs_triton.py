"""Triton for `runs`: a program copies a stretch of one head's run of keys or of values."""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# Kernels are Triton's language, which has no types of Python's.
from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from spatial_ttt.model.kernels.sizes import cdiv

if TYPE_CHECKING:
    from spatial_ttt.model.kernels.runs import Pair

_BLOCK = 4096


@triton.jit(do_not_specialize=["size"])
def _copy(
    keys, values, to_keys, to_values, size, heads, k_b, k_h, v_b, v_h, to_k_b, to_k_h, to_v_b, to_v_h,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1).to(tl.int64)
    batch, head = row // heads, row % heads
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    if tl.program_id(2) == 0:
        x = tl.load(keys + batch * k_b + head * k_h + at, mask=inside, other=0.0)
        tl.store(to_keys + batch * to_k_b + head * to_k_h + at, x, mask=inside)
    else:
        x = tl.load(values + batch * v_b + head * v_h + at, mask=inside, other=0.0)
        tl.store(to_values + batch * to_v_b + head * to_v_h + at, x, mask=inside)


def copy(sources: Pair, places: Pair) -> None:
    """See `runs.copy`."""
    batch, heads, length, dim = sources[0].shape
    size = length * dim
    if batch * heads * size:
        strides = [step for x in (*sources, *places) for step in x.stride()[:2]]
        _copy[(cdiv(size, _BLOCK), batch * heads, 2)](
            *sources, *places, size, heads, *strides, BLOCK=_BLOCK, num_warps=8
        )
