"""Numbers copied as what they are: long runs, several tensors by one launch.

torch's copy of a part of a larger buffer, keys and values of a window, counts every number's place; runs are some times
faster. Its copy of several tensors at once gives so much to each program that some have two turns and most have one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spatial_ttt.model.kernels import resolve_backend

Pair = tuple[Tensor, Tensor]
"""Keys and values, [B, Hkv, N, Dh] each."""


def applies(*pairs: Pair) -> bool:
    """The kernel may run: no gradients, tokens side by side in all of them, and the backend resolves to Triton."""
    first = pairs[0][0]
    if torch.is_grad_enabled() or resolve_backend("runs", first.device, first.dtype)[0] != "triton":
        return False
    return all(x.stride(3) == 1 and x.stride(2) == x.shape[3] for pair in pairs for x in pair)


def copy(sources: Pair, places: Pair) -> None:
    """Keys and values of one shape from `sources` to `places`, which do not overlap."""
    from spatial_ttt.model.kernels import runs_triton as kernels

    kernels.copy(sources, places)


def put(sources: Sequence[Tensor | None], places: Sequence[Tensor]) -> None:
    """Dense tensors to dense places of as many numbers, rounded as these want; where there is none, zeros."""
    if resolve_backend("runs", places[0].device, places[0].dtype)[0] == "triton":
        from spatial_ttt.model.kernels import runs_triton as kernels

        kernels.put(sources, places)
        return
    for x, to in zip(sources, places, strict=True):
        if x is None:
            to.zero_()
        else:
            to.copy_(x)
