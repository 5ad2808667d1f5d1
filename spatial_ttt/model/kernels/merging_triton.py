"""Two parts of an attention as one, where they lie: partial softmaxes joined by their log-sum-exps."""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# Kernels are Triton's language, which has no types of Python's.
from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from spatial_ttt.model.kernels.sizes import cdiv, next_power_of_2

_ROWS = 16


@triton.jit(do_not_specialize=["rows", "length", "wide"])
def _merge(
    out, lse, other, other_lse, done, rows, length, wide, heads, o_b, o_h, o_l, to_b, to_h, to_l, DIM: tl.constexpr,
    D: tl.constexpr, ROWS: tl.constexpr, IS_LAST: tl.constexpr,
):  # fmt: skip
    """Rows are queries of a head; `wide` queries stand in `other_lse` for each head, of which `length` count."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    there = row < rows
    head, i = row // length, row % length
    batch, h = head // heads, head % heads
    d = tl.arange(0, D)
    inside = there[:, None] & (d < DIM)[None, :]
    mine = tl.load(lse + row, mask=there, other=0.0)
    theirs = tl.load(other_lse + head * wide + i, mask=there, other=0.0)
    share = 1.0 / (1.0 + tl.exp(mine - theirs))
    peak = tl.maximum(mine, theirs)
    low = tl.minimum(mine, theirs)
    at = row[:, None] * DIM + d[None, :]
    x = tl.load(out + at, mask=inside, other=0.0)
    from_other = other + (batch * o_b + h * o_h + i * o_l)[:, None] + d[None, :]
    y = tl.load(from_other, mask=inside, other=0.0).to(tl.float32)
    found = x + share[:, None] * (y - x)
    if IS_LAST:
        to = done + (batch * to_b + h * to_h + i * to_l)[:, None] + d[None, :]
        tl.store(to, found.to(done.dtype.element_ty), mask=inside)
    else:
        tl.store(out + at, found, mask=inside)
        tl.store(lse + row, peak + tl.log(1.0 + tl.exp(low - peak)), mask=there)


def merge(
    out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor, done: Tensor | None = None
) -> None:
    """Join `other` [B, H, >= L, Dh] and its log-sum-exps [B, H, wide] to `out` float32 and `lse` [B, H, L], in place.

    With `done` [B, H, L, Dh], of any strides but the last, the result goes there, rounded.
    """
    batch, heads, length, dim = out.shape
    to = other if done is None else done
    rows = batch * heads * length
    _merge[(cdiv(rows, _ROWS),)](
        out, lse, other, other_lse, to, rows, length, other_lse.shape[2], heads, *other.stride()[:3],
        *to.stride()[:3], DIM=dim, D=next_power_of_2(dim), ROWS=_ROWS, IS_LAST=done is not None, num_warps=4,
    )  # fmt: skip
