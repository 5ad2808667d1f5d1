"""Keys and values copied as what they are: one long run of numbers for each head.

torch's copy of a part of a larger buffer counts every number's place; these runs are a few times faster, and both
tensors are one launch.
"""

from __future__ import annotations

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
