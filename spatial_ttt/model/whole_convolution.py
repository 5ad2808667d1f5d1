"""The convolution of whole videos in training: forward as a stream without gradients runs it, and a backward by hand.

Through autograd the tokens are copied for every step between them and the slots (35 times their size a layer); here
slots at equal distances are read and written where they lie, others gathered.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spatial_ttt.model.holding import Grid, Plan
from spatial_ttt.model.kernels import resolve_backend
from spatial_ttt.model.layers import derived
from spatial_ttt.model.state import Context
from spatial_ttt.model.stream_convolution import (
    _gap_index,
    _gaps,
    _token_index,
    as_one_row,
    convolve_released,
    kernel_of,
)
from spatial_ttt.model.ttt import TTTAttention


def convolve(
    self: TTTAttention, fast: Tensor, plan: Plan, context: Context | None
) -> tuple[Tensor, Context | None]:
    """`TTTAttention.convolve` for a model in training; everything but whole videos goes the usual way."""
    if not applies(fast, plan, context):
        return TTTAttention.convolve(self, fast, plan, context)
    weights = (self.conv_q.weight, self.conv_k.weight, self.conv_v.weight)
    kernel = derived(self, "convolution", weights, lambda: kernel_of(weights))
    return convolve_whole(fast, plan, kernel, self.config.convolution == "centred"), None


def applies(fast: Tensor, plan: Plan, context: Context | None) -> bool:
    """Gradients are wanted, every video begins and ends here, and the kernels run."""
    if context is not None or not plan.stretches or not torch.is_grad_enabled():
        return False
    for stretch in plan.stretches:
        if stretch.follows or stretch.stays_open or stretch.next_start is not None:
            return False
    if plan.released != fast.shape[1]:
        return False
    return resolve_backend("convolution", fast.device, fast.dtype)[0] == "triton"


def convolve_whole(fast: Tensor, plan: Plan, weight: Tensor, is_centred: bool) -> Tensor:
    """fast [B, L, C] with the slots of whole videos convolved by `weight` [C, 1, 3, 3, 3], text as it was."""
    row, of_all = as_one_row(fast, plan)
    out: Tensor = _WholeVideos.apply(row, weight, of_all, is_centred)
    return out.view_as(fast)


class _WholeVideos(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, fast: Tensor, weight: Tensor, plan: Plan, is_centred: bool) -> Tensor:
        ctx.save_for_backward(fast, weight)
        ctx.plan, ctx.is_centred = plan, is_centred
        return convolve_released(fast, plan, None, weight, is_centred)[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        from spatial_ttt.model.kernels import convolution_gradient_triton as kernels
        from spatial_ttt.model.kernels.convolution_triton import taps_of

        fast, weight = ctx.saved_tensors
        fast, grad = fast.contiguous(), grad.contiguous()
        d_fast = torch.empty_like(fast)
        if _gaps(ctx.plan):
            kernels.copy_tokens(d_fast, grad, _gap_index(ctx.plan, grad.device))
        taps, behind = taps_of(weight), 1 if ctx.is_centred else 2
        parts = []
        for videos in _videos(ctx.plan):
            from_slots = videos.of(grad)
            if ctx.needs_input_grad[1]:
                parts.append(kernels.backward_weight(from_slots, videos.of(fast), behind))
            d_slots = videos.of(d_fast) if videos.spacing else torch.empty_like(from_slots)
            kernels.backward_slots(d_slots, from_slots, taps, behind)
            if not videos.spacing:
                d_fast.index_copy_(1, videos.tokens(grad.device), d_slots.flatten(1, 4))
        d_weight = None
        if parts:
            d_weight = kernels.as_kernel(parts[0] if len(parts) == 1 else torch.cat(parts), weight)
        return d_fast, d_weight, None, None


class _Videos(NamedTuple):
    """Videos alike at equal distances in a row of tokens, or one whose slots lie anywhere (`spacing` 0)."""

    grid: Grid
    starts: tuple[int, ...]  # first token of each slot of the first video
    spacing: int  # tokens from slot to slot
    videos: int
    apart: int  # tokens from video to video

    def of(self, tokens: Tensor) -> Tensor:
        """[B, videos, slots, h, w, C] of tokens [B, L, C] side by side: where they lie if that can be, else copied."""
        (height, width), slots, channels = self.grid, len(self.starts), tokens.shape[2]
        if not self.spacing:
            gathered = tokens.index_select(1, self.tokens(tokens.device))
            return gathered.unflatten(1, (1, slots, height, width))
        steps = (self.apart, self.spacing, width, 1)
        return tokens.as_strided(
            (tokens.shape[0], self.videos, slots, height, width, channels),
            (tokens.stride(0), *(step * channels for step in steps), 1),
            tokens.storage_offset() + self.starts[0] * channels,
        )

    def tokens(self, device: torch.device) -> Tensor:
        """Indices of the tokens of the first video's slots."""
        return _token_index(self.starts, self.grid[0] * self.grid[1], device)


@lru_cache(maxsize=4096)
def _videos(plan: Plan) -> tuple[_Videos, ...]:
    """The stretches, each a whole video, those that follow each other alike together."""
    found: list[_Videos] = []
    for stretch in plan.stretches:
        this = _Videos(stretch.grid, stretch.starts, stretch.spacing, 1, 0)
        if found and this.spacing:
            last = found[-1]
            apart = this.starts[0] - last.starts[0] - (last.videos - 1) * last.apart
            is_alike = (this.grid, this.spacing, len(this.starts)) == (
                last.grid,
                last.spacing,
                len(last.starts),
            )
            if is_alike and (last.videos == 1 or apart == last.apart):
                found[-1] = last._replace(videos=last.videos + 1, apart=apart)
                continue
        found.append(this)
    return tuple(found)
