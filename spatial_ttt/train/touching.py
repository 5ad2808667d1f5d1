"""Gradients of zero: processes that add theirs up must all have the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor


class _Touch(torch.autograd.Function):
    """The identity, whose backward gives every listed parameter a gradient of zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.like = [(p.shape, p.dtype, p.device) for p in parameters]
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        zeros = (torch.zeros((), dtype=t, device=d).expand(s) for s, t, d in ctx.like)
        return grad, *zeros


def touch(x: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """`x`, with a gradient of zero for parameters that nothing else may use."""
    return cast(Tensor, _Touch.apply(x, *parameters)) if parameters else x
