"""Whole sequences, padded, ragged or packed, through the streaming decoder.

Every sample gets its own layout and state, so packed samples cannot touch. Samples whose layouts
agree up to trailing text run as one batch: tokens after a sample's end never reach it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from spatial_ttt.errors import VideoError
from spatial_ttt.model.layout import (
    Layout,
    RunKind,
    VisionIds,
    layout_of_ids,
    num_tokens,
)
from spatial_ttt.model.vision import VisionTokens

if TYPE_CHECKING:
    from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration

Pixels = dict[str, tuple[Tensor | None, Tensor | None]]
"""Patches and grids of "image" and "video"."""


class Sample(NamedTuple):
    """One sample of a padded, possibly packed batch."""

    row: int
    where: Tensor  # [n] its token positions in the row
    layout: Layout
    vision: VisionTokens | None


def run_whole(
    model: SpatialTTTForConditionalGeneration,
    ids: Tensor,
    mask: Tensor,
    sample_ids: Tensor | None,
    pixels: Pixels,
) -> Tensor:
    """Hidden states [B, L, D] of every real token, zero at padding."""
    samples = split_samples(model, ids, mask, sample_ids, pixels)
    groups: dict[Layout, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(_without_tail(sample.layout), []).append(sample)
    width = model.config.text_config.hidden_size
    out: Tensor | None = None
    for members in groups.values():
        hidden = _run_group(model, ids, members)
        if out is None:
            out = hidden.new_zeros(*ids.shape, width)
        for sample, row in zip(members, hidden, strict=True):
            at = (torch.full_like(sample.where, sample.row), sample.where)
            out = out.index_put(at, row[: sample.where.numel()])
    if out is None:
        raise VideoError("the batch holds no token: attention_mask is zero everywhere")
    return out


def _run_group(
    model: SpatialTTTForConditionalGeneration, ids: Tensor, members: list[Sample]
) -> Tensor:
    longest = max(members, key=lambda sample: num_tokens(sample.layout))
    length = num_tokens(longest.layout)
    rows = torch.stack(
        [
            torch.nn.functional.pad(ids[s.row, s.where], (0, length - s.where.numel()), value=0)
            for s in members
        ]
    )
    vision = None
    if longest.vision is not None:
        found = [s.vision for s in members if s.vision is not None]
        vision = VisionTokens(
            torch.cat([v.tokens for v in found]), torch.cat([v.deepstack for v in found], dim=1)
        )
    hidden, deepstack = model.embed(rows, longest.layout, vision)
    tokens, _ = model.decoder.tokens(hidden, longest.layout, 0, deepstack)
    done, _ = model.decoder(tokens, model.decoder.start(), keep_state=False)
    return done.hidden


def _without_tail(layout: Layout) -> Layout:
    return layout[:-1] if layout and layout[-1].kind == RunKind.TEXT else layout


def split_samples(
    model: SpatialTTTForConditionalGeneration,
    ids: Tensor,
    mask: Tensor,
    sample_ids: Tensor | None,
    pixels: Pixels,
) -> list[Sample]:
    """Find each sample's tokens, layout and vision tokens, in order."""
    config = model.config
    merge = config.vision_config.spatial_merge_size
    special = VisionIds(config.image_token_id, config.video_token_id)
    queues = {kind: _Grids(model, *pair) for kind, pair in pixels.items()}
    host_ids, host_mask = ids.tolist(), mask.bool()
    samples = []
    for row, row_ids in enumerate(host_ids):
        names = sample_ids[row] if sample_ids is not None else torch.zeros_like(ids[row])
        for name in dict.fromkeys(names[host_mask[row]].tolist()):
            where = (host_mask[row] & (names == name)).nonzero()[:, 0]
            own = [row_ids[i] for i in where.tolist()]
            grids, vision = _vision_of(own, special, queues)
            layout = layout_of_ids(own, [(t, h // merge, w // merge) for t, h, w in grids], special)
            samples.append(Sample(row, where, layout, vision))
    for kind, queue in queues.items():
        if queue.grids:
            raise VideoError(
                f"{len(queue.grids)} {kind} grids are left over; the prompts hold fewer {kind}s"
            )
    return samples


class _Grids:
    """The grids and patches of one kind, handed out in order."""

    def __init__(
        self,
        model: SpatialTTTForConditionalGeneration,
        patches: Tensor | None,
        grids: Tensor | None,
    ) -> None:
        self.model = model
        self.patches = patches
        self.grids: list[tuple[int, int, int]] = (
            [] if grids is None else [tuple(g) for g in grids.tolist()]
        )
        self.at = 0
        expected = sum(t * h * w for t, h, w in self.grids)
        got = 0 if patches is None else patches.shape[0]
        if got != expected:
            raise VideoError(f"the grids hold {expected} patches, got {got}")

    def take(self) -> tuple[tuple[int, int, int], VisionTokens]:
        """The next grid and its vision tokens."""
        assert self.patches is not None
        t, h, w = self.grids.pop(0)
        patches = self.patches[self.at : self.at + t * h * w].unflatten(0, (t, h * w))
        self.at += t * h * w
        return (t, h, w), self.model.encode(patches, (h, w))


def _vision_of(
    ids: list[int], special: VisionIds, queues: dict[str, _Grids]
) -> tuple[list[tuple[int, int, int]], VisionTokens | None]:
    """Grids of one sample's videos and images in order of appearance, and their slots flattened to one batch row."""
    grids, parts = [], []
    at = 0
    merge = next(iter(queues.values())).model.config.vision_config.spatial_merge_size
    while at < len(ids):
        kind = {special.image: "image", special.video: "video"}.get(ids[at])
        if kind is None:
            at += 1
            continue
        if not queues[kind].grids:
            raise VideoError(
                f"the prompt holds more {kind} placeholders than there are {kind} grids"
            )
        grid, vision = queues[kind].take()
        grids.append(grid)
        parts.append(vision)
        left = grid[0] * (grid[1] // merge) * (grid[2] // merge)
        while left and at < len(ids):
            left -= ids[at] == getattr(special, kind)
            at += 1
    if not parts:
        return grids, None
    tokens = torch.cat([v.tokens.flatten(0, 1) for v in parts])[None]
    deepstack = torch.cat([v.deepstack.flatten(1, 2) for v in parts], dim=1)[:, None]
    return grids, VisionTokens(tokens, deepstack)
