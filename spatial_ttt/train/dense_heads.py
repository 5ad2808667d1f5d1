"""Linear heads for dense supervision; trained along, never saved with the model.

On vision tokens: which categories a token's pixels show, and how far away they are. On the closing
token of each slot: where the camera is, what was counted so far, and where single things stand from here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spatial_ttt.train.branches import Ingested
from spatial_ttt.train.clip_text import Prefix
from spatial_ttt.train.clip_types import ClipSpec
from spatial_ttt.train.devices import constant
from spatial_ttt.train.ring import Batch

METRE = 3.0  # distances are divided by this


class DenseLosses(NamedTuple):
    """Means over the batch."""

    category: Tensor
    depth: Tensor
    pose: Tensor
    counts: Tensor
    place: Tensor

    def total(self) -> Tensor:
        """Their weighted sum."""
        return 2.0 * self.category + 0.3 * self.depth + 0.5 * self.pose + self.counts + self.place


class DenseHeads(nn.Module):
    """Read-outs of `num_categories` categories from vision tokens and slot ends."""

    def __init__(self, hidden_size: int, num_categories: int) -> None:
        super().__init__()
        self.num_categories = num_categories
        self.vision = nn.Linear(hidden_size, num_categories + 1)
        self.slot = nn.Linear(hidden_size, 4 + 3 * num_categories)
        for linear in (self.vision, self.slot):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(
        self, ingested: Ingested, batch: Batch, prefix: Prefix, spec: ClipSpec
    ) -> DenseLosses:
        """Losses of one batch."""
        assert ingested.vision is not None
        vision = self.vision(ingested.vision.tokens).float()  # [B * S, N, K + 1]
        shown, depth = token_targets(batch, spec, self.num_categories)
        category = F.binary_cross_entropy_with_logits(vision[..., :-1], shown)
        far = F.smooth_l1_loss(vision[..., -1], depth.clamp(min=0.1).log())
        ends = constant(prefix.slot_ends, batch.pose.device)
        slot = self.slot(ingested.hidden.index_select(1, ends)).float()  # [B, S, 4 + 3 K]
        pose, count, place = slot.split((4, self.num_categories, 2 * self.num_categories), dim=-1)
        scale = constant((1 / METRE, 1 / METRE, 1.0, 1.0), pose.device).to(pose.dtype)
        pose_loss = F.smooth_l1_loss(pose, batch.pose * scale)
        count_loss = F.smooth_l1_loss(count, batch.counts.float().clamp(max=6), beta=0.5)
        seen, here = place_targets(batch)
        error = F.smooth_l1_loss(place.unflatten(-1, (-1, 2)), here / METRE, reduction="none").sum(
            -1
        )
        place_loss = (error * seen).sum() / seen.sum().clamp(min=1.0)
        return DenseLosses(category, far, pose_loss, count_loss, place_loss)


def token_targets(batch: Batch, spec: ClipSpec, num_categories: int) -> tuple[Tensor, Tensor]:
    """What each vision token shows: categories float [B * S, N, K] 0 or 1, mean depth [B * S, N] m."""
    rows, cols = spec.grid

    def cells(x: Tensor) -> Tensor:
        size_y, size_x = x.shape[-2] // rows, x.shape[-1] // cols
        split = x.reshape(-1, 2, rows, size_y, cols, size_x)
        return split.permute(0, 2, 4, 1, 3, 5).reshape(-1, rows * cols, 2 * size_y * size_x)

    index = cells(batch.category).long()
    shown = torch.zeros(*index.shape[:2], num_categories, device=index.device)
    shown.scatter_(2, index, 1.0)
    return shown, cells(batch.depth).float().mean(-1)


def place_targets(batch: Batch) -> tuple[Tensor, Tensor]:
    """Single things seen so far [B, S, K] 0 or 1, and their places right and ahead of the camera [B, S, K, 2] m."""
    known = torch.isfinite(batch.place).all(-1)  # [B, K]
    seen = (known[:, None] & (batch.counts > 0)).float()
    x, y, sine, cosine = batch.pose[..., None].unbind(2)  # [B, S, 1]
    place = torch.nan_to_num(batch.place)[:, None]  # [B, 1, K, 2]
    dx, dy = place[..., 0] - x, place[..., 1] - y
    # The camera looks along (-sine, cosine) of the first camera's frame.
    right, ahead = dx * cosine + dy * sine, dy * cosine - dx * sine
    return seen, torch.stack((right, ahead), dim=-1)
