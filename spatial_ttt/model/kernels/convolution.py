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
        from spatial_ttt.model.kernels import convolution_triton as kernels

        slots, weight = ctx.saved_tensors
        for_slots, for_weight = ctx.needs_input_grad
        return (
            kernels.backward_slots(grad, weight) if for_slots else None,
            kernels.backward_weight(grad, slots, weight) if for_weight else None,
        )
