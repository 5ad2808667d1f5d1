"""Depthwise 3x3x3 convolution that saves its input and its kernel, nothing else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def convolve_slots(slots: Tensor, weight: Tensor) -> Tensor:
    """[B, T + 2, h, w, C] and [C, 1, 3, 3, 3] -> [B, T, h, w, C], in Triton."""
    out: Tensor = _Convolution.apply(slots, weight)
    return out


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, slots: Tensor, weight: Tensor) -> Tensor:
        from spatial_ttt.model.kernels import convolution_triton as kernels

        ctx.save_for_backward(slots, weight)
        return kernels.forward(slots, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        from spatial_ttt.model.kernels import convolution_gradient_triton as kernels
        from spatial_ttt.model.kernels.convolution_triton import taps_of

        slots, weight = ctx.saved_tensors
        for_slots, for_weight = ctx.needs_input_grad
        grad = grad.contiguous()[:, None]
        d_slots = d_weight = None
        if for_slots:
            d_slots = slots.new_empty(slots.shape)
            kernels.backward_slots(d_slots[:, None], grad, taps_of(weight), 0)
        if for_weight:
            slots = slots if slots.stride(-1) == 1 else slots.contiguous()
            parts = kernels.backward_weight(grad, slots[:, None], 0)
            d_weight = kernels.as_kernel(parts, weight)
        return d_slots, d_weight
