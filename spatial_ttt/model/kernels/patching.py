"""Frames to patches in one pass over memory; `Processor.patches` in torch operations takes five."""

from __future__ import annotations

import torch
from torch import Tensor

from spatial_ttt.model.kernels import DTYPES, resolve_backend


def applies(frames: Tensor, dtype: torch.dtype) -> bool:
    """The kernel may run: whole grey levels, and patches of a type it makes."""
    if frames.dtype != torch.uint8 or dtype not in DTYPES:
        return False
    return resolve_backend("patching", frames.device, dtype)[0] == "triton"


def patches(
    frames: Tensor, mean: Tensor, std: Tensor, patch: int, merge: int, dtype: torch.dtype
) -> Tensor:
    """uint8 [2 S, H, W, 3] -> (x - mean) / std [S, h * w, 3 * 2 * patch * patch], as `Processor.patches` orders it.

    `mean` and `std` are float32 [3] on the frames' device; sides are multiples of patch * merge. Equal to the plain
    operations bit for bit: rounded to float32 after each, then to `dtype`.
    """
    from spatial_ttt.model.kernels import patching_triton as kernels

    return kernels.patches(frames, mean, std, patch, merge, dtype)
