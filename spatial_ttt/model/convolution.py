"""The spatial-predictive convolution: depthwise 3x3x3 over the vision tokens of a video.

Cross-correlation, no bias, replicate padding on time, height and width. Works on slots as they
stand in a piece of a stream: two more slots come along as temporal context, copies of the border
slot where the video begins or ends. Centred: one on either side; causal: both before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from spatial_ttt.model.kernels import resolve_backend


def convolve_slots(slots: Tensor, weight: Tensor) -> Tensor:
    """[B, T + 2, h, w, C] -> [B, T, h, w, C]; output t reads slots t, t + 1, t + 2.

    `weight` is [C, 1, 3, 3, 3] (time, height, width), as `torch.nn.Conv3d` keeps a depthwise kernel.
    """
    backend, _ = resolve_backend("convolution", slots.device, slots.dtype)
    if backend == "triton":
        from spatial_ttt.model.kernels import convolution as kernel

        return kernel.convolve_slots(slots, weight)
    return plain_convolve_slots(slots, weight)


def plain_convolve_slots(slots: Tensor, weight: Tensor) -> Tensor:
    """The same in torch operations, for every device and dtype."""
    padded = F.pad(
        slots.movedim(-1, 1), (1, 1, 1, 1, 0, 0), mode="replicate"
    )  # [B, C, T + 2, h + 2, w + 2]
    needs_grad = torch.is_grad_enabled() and (slots.requires_grad or weight.requires_grad)
    if needs_grad or slots.dtype == torch.float64:
        # The library's depthwise backward and its float64 path are 4 to 10 times slower than 27 taps.
        return _taps(padded.movedim(1, -1), weight)
    return F.conv3d(padded, weight, groups=weight.shape[0]).movedim(1, -1)


def _taps(padded: Tensor, weight: Tensor) -> Tensor:
    kernel = weight[:, 0].permute(1, 2, 3, 0)  # [3, 3, 3, C]
    frames, height, width = (size - 2 for size in padded.shape[1:4])
    out = None
    for t in range(3):
        for row in range(3):
            for col in range(3):
                view = padded[:, t : t + frames, row : row + height, col : col + width]
                tap = kernel[t, row, col]
                out = view * tap if out is None else torch.addcmul(out, view, tap)
    assert out is not None
    return out


def take_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Tokens [B, L, C] at the distinct places `index` [n] -> [B, n, C].

    `index_select` would add its gradients up with atomics, as if a place could come twice.
    """
    taken: Tensor = _TakeTokens.apply(tokens, index)
    return taken


class _TakeTokens(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.length = tokens.shape[1]
        return tokens.index_select(1, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        whole = grad.new_zeros(grad.shape[0], ctx.length, grad.shape[2])
        return whole.index_copy_(1, index, grad), None


def dirac(channels: int, centre: int) -> Tensor:
    """The kernel [C, 1, 3, 3, 3] that returns slot t + centre (1: centred, 2: causal) unchanged."""
    kernel = torch.zeros(channels, 1, 3, 3, 3)
    kernel[:, 0, centre, 1, 1] = 1.0
    return kernel
