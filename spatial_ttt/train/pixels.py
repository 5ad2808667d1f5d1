"""Frames on the device -> patches for the vision tower."""

from __future__ import annotations

import torch
from torch import Tensor

from spatial_ttt.train.clip_types import ClipSpec

PATCH, MERGE, TEMPORAL = 16, 2, 2


def patchify(frames: Tensor, spec: ClipSpec, dtype: torch.dtype) -> tuple[Tensor, tuple[int, int]]:
    """uint8 [B, T, H, W, 3] -> patches [B * S, h * w, 3 * 2 * 16 * 16] in merge order, and (h, w).

    Colours go from 0..255 to -1..1, as Qwen3-VL's processor scales them.
    """
    h, w = spec.height // PATCH, spec.width // PATCH
    scaled = frames.to(dtype) * (2 / 255) - 1
    cells = scaled.reshape(-1, TEMPORAL, h // MERGE, MERGE, PATCH, w // MERGE, MERGE, PATCH, 3)
    # [slot, time, row, merge row, y, column, merge column, x, colour]
    order = cells.permute(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return order.reshape(-1, h * w, 3 * TEMPORAL * PATCH * PATCH), (h, w)
