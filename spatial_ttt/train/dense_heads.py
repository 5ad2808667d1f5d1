"""Linear heads for dense supervision; trained along, never saved with the model.

On vision tokens: which categories a token's pixels show and how far away they are, and, inside the
decoder before each anchor, where what they show stands. On the closing token of each slot: where the
camera is, what was counted so far, and where single things stand from here. On the words of a question:
where each thing it names stands, when it was first seen, and how many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spatial_ttt.train.branches import Ingested
from spatial_ttt.train.clip_text import Prefix
from spatial_ttt.train.clip_types import ClipSpec
from spatial_ttt.train.devices import constant
from spatial_ttt.train.ring import Batch
from spatial_ttt.train.touching import touch

METRE = 3.0  # distances are divided by this
SECOND = 4.0  # and times by this
COUNT_SCALE = 4.0  # counts are read on a scale of their logarithms: no number is too large for it


class DenseLosses(NamedTuple):
    """Means over the batch."""

    category: Tensor
    depth: Tensor
    pose: Tensor
    counts: Tensor
    place: Tensor
    where: Tensor

    def total(self) -> Tensor:
        """Their weighted sum."""
        lone = 2.0 * self.category + 0.3 * self.depth + 0.5 * self.pose
        return lone + self.counts + self.place + self.where


class Named(NamedTuple):
    """Words of packed questions that name a category."""

    at: Tensor  # [N] index into the flattened rows
    row: Tensor  # [N]
    category: Tensor  # [N]


class DenseHeads(nn.Module):
    """Read-outs of `num_categories` categories; `inner` and `words` are numbers of layers listened to."""

    def __init__(self, hidden_size: int, num_categories: int, inner: int, words: int) -> None:
        super().__init__()
        self.num_categories = num_categories
        self.vision = nn.Linear(hidden_size, num_categories + 1)
        self.slot = nn.Linear(hidden_size, 4 + 3 * num_categories)
        self.inner = nn.ModuleList(nn.Linear(hidden_size, 2) for _ in range(inner))
        self.words = nn.ModuleList(nn.Linear(hidden_size, 4) for _ in range(words))
        for linear in (m for m in self.modules() if isinstance(m, nn.Linear)):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        ingested: Ingested,
        heard: Sequence[Tensor],
        batch: Batch,
        around: tuple[Prefix, ClipSpec],
    ) -> DenseLosses:
        """Losses of one batch; `heard` are the hidden states [B, L, D] before the anchors."""
        assert ingested.vision is not None
        prefix, spec = around
        vision = self.vision(ingested.vision.tokens).float()  # [B * S, N, K + 1]
        shown, main, depth = token_targets(batch, spec, self.num_categories)
        category = F.binary_cross_entropy_with_logits(vision[..., :-1], shown)
        far = F.smooth_l1_loss(vision[..., -1], depth.clamp(min=0.1).log())
        pose, count, place = self._slots(ingested, prefix)
        scale = constant((1 / METRE, 1 / METRE, 1.0, 1.0), pose.device).to(pose.dtype)
        pose_loss = F.smooth_l1_loss(pose, batch.pose * scale)
        seen, here = place_targets(batch)
        place_loss = _where_known(place.unflatten(-1, (-1, 2)), here / METRE, seen)
        where = self._inner(heard, batch, main, prefix)
        return DenseLosses(category, far, pose_loss, _count_loss(count, batch), place_loss, where)

    def counts(self, ingested: Ingested, batch: Batch, prefix: Prefix) -> Tensor:
        """The loss of what was counted so far, alone; every head gets a gradient, if only of zero."""
        _, count, _ = self._slots(ingested, prefix)
        return touch(_count_loss(count, batch), tuple(self.parameters()))

    def _slots(self, ingested: Ingested, prefix: Prefix) -> tuple[Tensor, Tensor, Tensor]:
        """Pose [B, S, 4], counts [B, S, K], places [B, S, 2 K] read from the slots' closing tokens."""
        ends = constant(prefix.slot_ends, ingested.hidden.device)
        slot = self.slot(ingested.hidden.index_select(1, ends)).float()
        pose, count, place = slot.split((4, self.num_categories, 2 * self.num_categories), dim=-1)
        return pose, count, place

    def _inner(self, heard: Sequence[Tensor], batch: Batch, main: Tensor, prefix: Prefix) -> Tensor:
        """Where the thing a vision token mainly shows stands, if it is the only one of its kind."""
        at = constant(prefix.vision, main.device)
        category = main.view(batch.place.shape[0], -1)  # [B, S * N]
        place = batch.place.gather(1, category[..., None].expand(-1, -1, 2))
        known = torch.isfinite(place).all(-1) & (category > 0)
        target = torch.nan_to_num(place) / METRE
        if not self.inner:  # no anchor, nothing to look up
            return torch.zeros((), device=main.device)
        losses = [
            _where_known(head(_normed(hidden.index_select(1, at))).float(), target, known)
            for head, hidden in zip(self.inner, heard, strict=True)
        ]
        return torch.stack(losses).mean()

    def names(self, heard: Sequence[Tensor], batch: Batch, named: Named) -> Tensor:
        """What the words of questions [B, W, D] know of the things they name."""
        row, category = named.row, named.category
        place, first = batch.place[row, category], batch.first[row, category]
        target = torch.cat((place / METRE, first[:, None] / SECOND), dim=1)
        has_place = torch.isfinite(place).all(-1)
        known = torch.stack((has_place, has_place, torch.isfinite(first)), dim=1)
        count = on_count_scale(batch.counts[row, -1, category])
        losses = []
        for head, hidden in zip(self.words, heard, strict=True):
            said = head(_normed(hidden.flatten(0, 1).index_select(0, named.at))).float()
            error = F.smooth_l1_loss(said[:, :3], torch.nan_to_num(target), reduction="none")
            known_error = (error * known).sum() / known.sum().clamp(min=1.0)
            counted = F.smooth_l1_loss(said[:, 3], count, beta=0.5, reduction="sum")
            losses.append(2 * known_error + 0.5 * counted / max(len(count), 1))
        return torch.stack(losses).mean()


def _count_loss(count: Tensor, batch: Batch) -> Tensor:
    return F.smooth_l1_loss(count, on_count_scale(batch.counts), beta=0.5)


def on_count_scale(count: Tensor) -> Tensor:
    """Counts as the read-outs say them: an error of a tenth weighs as much among many as among few."""
    return COUNT_SCALE * count.float().log1p()


def _normed(hidden: Tensor) -> Tensor:
    return F.rms_norm(hidden, hidden.shape[-1:])


def _where_known(said: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Mean over what is known of the errors in both coordinates."""
    error = F.smooth_l1_loss(said, target, reduction="none").sum(-1)
    return (error * known).sum() / known.sum().clamp(min=1.0)


def token_targets(
    batch: Batch, spec: ClipSpec, num_categories: int
) -> tuple[Tensor, Tensor, Tensor]:
    """What each vision token shows: categories float [B * S, N, K] 0 or 1, the main one, mean depth m [B * S, N].

    The main one is the category of most pixels; 0 where only the building is seen.
    """
    rows, cols = spec.grid

    def cells(x: Tensor) -> Tensor:
        size_y, size_x = x.shape[-2] // rows, x.shape[-1] // cols
        split = x.reshape(-1, 2, rows, size_y, cols, size_x)
        return split.permute(0, 2, 4, 1, 3, 5).reshape(-1, rows * cols, 2 * size_y * size_x)

    index = cells(batch.category).long()
    pixels = torch.zeros(*index.shape[:2], num_categories, device=index.device)
    pixels.scatter_add_(2, index, torch.ones_like(index, dtype=pixels.dtype))
    most, main = pixels[..., 1:].max(-1)
    main = torch.where(most > 0, main + 1, 0)
    return (pixels > 0).float(), main, cells(batch.depth).float().mean(-1)


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
