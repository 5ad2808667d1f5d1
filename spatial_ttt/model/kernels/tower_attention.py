"""Attention inside the slots of the vision tower, read from and written where the products around it want it.

Without gradients; training through the tower and what the kernel does not take are left to torch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spatial_ttt.model.kernels import resolve_backend

MOST_CHANNELS = 128
"""Of a head; wider ones would not fit into registers with these tiles."""


def applies(qkv: Tensor, num_heads: int) -> bool:
    """The kernel may run on qkv [S, P, 3 H Dh]: no gradients are wanted, and the backend resolves to Triton."""
    if torch.is_grad_enabled() or not _takes(qkv, num_heads):
        return False
    return resolve_backend("tower_attention", qkv.device, qkv.dtype)[0] == "triton"


def _takes(qkv: Tensor, num_heads: int) -> bool:
    """On a GPU float32 is left to torch, which is no slower there."""
    if qkv.dtype == torch.float32 and qkv.device.type == "cuda":
        return False
    return qkv.is_contiguous() and 0 < qkv.shape[-1] <= 3 * num_heads * MOST_CHANNELS


def attend(qkv: Tensor, num_heads: int) -> Tensor:
    """Each patch attends to all patches of its slot: [S, P, 3 H Dh], rotated and contiguous -> [S, P, H Dh]."""
    from spatial_ttt.model.kernels import tower_attention_triton as kernels

    return kernels.attend(qkv, num_heads)
