"""The convolution of whole videos, for training, against the stream's through autograd."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from spatial_ttt.model.holding import Plan, plan
from spatial_ttt.model.kernels import request_backend
from spatial_ttt.model.layout import END, Layout, slot, text
from tests.model.kernels.check import Check


def whole_convolution(device: torch.device) -> Iterator[Check]:
    """Slots at equal and at other distances, one slot, two videos of different sizes."""
    from spatial_ttt.model.stream_convolution import convolve_released
    from spatial_ttt.model.whole_convolution import applies, convolve_whole

    layouts: dict[str, Layout] = {
        "regular": (text(3), *(slot(2, 3), text(2)) * 4, END, text(4)),
        "irregular": (*(slot(2, 3), text(1), slot(2, 3), text(2)) * 2, END, text(1)),
        "one": (text(1), slot(3, 1), END, text(2)),
        "two": (slot(2, 2), slot(2, 2), END, text(2), slot(1, 4), text(1), slot(1, 4), END),
    }
    kinds = [(torch.float32, 2e-6)] + [(torch.bfloat16, 1e-2)] * (device.type == "cuda")
    for (name, layout), how, (dtype, limit) in product(
        layouts.items(), ("centred", "causal"), kinds
    ):
        todo, is_centred = plan(layout, None, how), how == "centred"

        def plain(
            fast: Tensor, weight: Tensor, todo: Plan = todo, is_centred: bool = is_centred
        ) -> Tensor:
            with request_backend("reference"):
                return convolve_released(fast, todo, None, weight, is_centred)[0]

        def whole(
            fast: Tensor, weight: Tensor, todo: Plan = todo, is_centred: bool = is_centred
        ) -> Tensor:
            with request_backend("triton"):
                assert applies(fast, todo, None)
                return convolve_whole(fast, todo, weight, is_centred)

        length = sum(run.length for run in layout)
        fast = torch.randn(2, length, 48, device=device).to(dtype)
        weight = torch.randn(48, 1, 3, 3, 3, device=device).to(dtype)
        yield Check(f"{name} {how} {dtype}", whole, plain, (fast, weight), limit)
