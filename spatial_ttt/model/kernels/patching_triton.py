"""Triton for `patching`: a program makes a stretch of one patch's row, bytes come through the cache."""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# Kernels are Triton's language, which has no types of Python's.
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from spatial_ttt.model.kernels.sizes import cdiv

_BLOCK = 512


@triton.jit
def _patches(
    frames, mean, std, out, height, width, PATCH: tl.constexpr, MERGE: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Rows are patches in merge order, [token row, token column, row in token, column in token] of a slot."""
    row = tl.program_id(0).to(tl.int64)
    rows, cols = height // PATCH, width // PATCH
    slot, patch = row // (rows * cols), row % (rows * cols)
    token, inner = patch // (MERGE * MERGE), patch % (MERGE * MERGE)
    across = cols // MERGE
    top = ((token // across) * MERGE + inner // MERGE) * PATCH
    left = ((token % across) * MERGE + inner % MERGE) * PATCH
    area: tl.constexpr = PATCH * PATCH
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < 6 * area
    colour, frame = at // (2 * area), at // area % 2
    y, x = top + at // PATCH % PATCH, left + at % PATCH
    source = (((slot * 2 + frame) * height + y) * width + x) * 3 + colour
    value = tl.load(frames + source, mask=inside, other=0).to(tl.float32)
    value -= tl.load(mean + colour, mask=inside, other=0.0)
    value = tl.div_rn(value, tl.load(std + colour, mask=inside, other=1.0))
    tl.store(out + row * (6 * area) + at, value.to(out.dtype.element_ty), mask=inside)


def patches(
    frames: Tensor, mean: Tensor, std: Tensor, patch: int, merge: int, dtype: torch.dtype
) -> Tensor:
    """See `patching.patches`."""
    frames = frames.contiguous()
    count, height, width, _ = frames.shape
    grid = (height // patch) * (width // patch)
    length = 6 * patch * patch
    out = torch.empty(count // 2, grid, length, dtype=dtype, device=frames.device)
    if out.numel():
        _patches[(out.shape[0] * grid, cdiv(length, _BLOCK))](
            frames, mean, std, out, height, width, PATCH=patch, MERGE=merge, BLOCK=_BLOCK, num_warps=4
        )  # fmt: skip
    return out
