"""The convolution of whole videos in training: forward as a stream without gradients runs it, and a backward by hand.

Through autograd the tokens are copied for every step between them and the slots (35 times their size a layer); here
they are gathered once for each of the three gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spatial_ttt.model.holding import Plan, Stretch
from spatial_ttt.model.kernels import resolve_backend
from spatial_ttt.model.layers import derived
from spatial_ttt.model.state import Context
from spatial_ttt.model.stream_convolution import (
    _gap_index,
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
        from spatial_ttt.model.kernels import convolution_triton as kernels

        fast, weight = ctx.saved_tensors
        between = _gap_index(ctx.plan, grad.device)
        d_fast = torch.empty_like(fast)
        d_fast.index_copy_(1, between, grad.index_select(1, between))
        d_weight = None
        for stretch in ctx.plan.stretches:
            at, around = _indices(stretch, ctx.is_centred, grad.device)
            shape = (-1, *stretch.grid)
            from_slots = grad.index_select(1, at).unflatten(1, shape)
            if ctx.needs_input_grad[1]:
                slots = fast.index_select(1, around).unflatten(1, shape)
                found = kernels.backward_weight(from_slots, slots, weight)
                d_weight = found if d_weight is None else d_weight + found
                del slots
            seen = kernels.backward_slots(from_slots, weight)
            d_fast.index_copy_(1, at, _own(seen, ctx.is_centred).flatten(1, 3))
        return d_fast, d_weight, None, None


def _indices(stretch: Stretch, is_centred: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """Indices of the slots' tokens, and the same with the copies of border slots that are read around them."""
    starts, (height, width) = stretch.starts, stretch.grid
    before = starts[:1] if is_centred else starts[:1] * 2
    after = starts[-1:] if is_centred else ()
    size = height * width
    return (
        _token_index(starts, size, device),
        _token_index((*before, *starts, *after), size, device),
    )


def _own(seen: Tensor, is_centred: bool) -> Tensor:
    """Gradients of slots [B, T, h, w, C] from `seen`, those of slots and their copies [B, T + 2, h, w, C]; in place."""
    if is_centred:
        seen[:, 1].add_(seen[:, 0])
        seen[:, -2].add_(seen[:, -1])
        return seen[:, 1:-1]
    seen[:, 2].add_(seen[:, 0] + seen[:, 1])
    return seen[:, 2:]
