"""Triton for `runs`: a program copies a stretch of one run."""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# Kernels are Triton's language, which has no types of Python's.
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import triton
import triton.language as tl
from torch import Tensor

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


@triton.jit
def _put(sources, known, places, sizes, BLOCK: tl.constexpr):
    """Axis 1 of the grid counts the runs. The first `known` numbers of a place have a source, others become zero."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    for i in tl.static_range(len(sources)):
        if tl.program_id(1) == i:
            x = tl.load(sources[i] + at, mask=at < known[i], other=0.0)
            tl.store(places[i] + at, x.to(places[i].dtype.element_ty), mask=at < sizes[i])


def put(sources: Sequence[Tensor | None], places: Sequence[Tensor]) -> None:
    """See `runs.put`."""
    sizes = tuple(to.numel() for to in places)
    pairs = tuple(zip(sources, places, strict=True))
    known = tuple(0 if x is None else x.numel() for x in sources)
    whole = tuple(to if x is None else x.contiguous() for x, to in pairs)
    _put[(cdiv(max(sizes), _BLOCK), len(sizes))](
        whole, known, tuple(places), sizes, BLOCK=_BLOCK, num_warps=8
    )
