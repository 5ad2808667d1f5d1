"""Attention over keys whose number only the device knows; for streaming, where no gradients are asked for.

A launch depends on shapes alone, so it can be captured once and replayed while a stream grows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from spatial_ttt.model.kernels import resolve_backend


class Past(NamedTuple):
    """Where keys and values lie: [B, Hkv, room, Dh] of equal strides, tokens side by side.

    With a table they lie in pages of `page` tokens, and keys and values only anchor addresses: a row says where
    a page's keys and values begin, counted in numbers from `keys` and `values`, and how far apart heads are.
    """

    keys: Tensor
    values: Tensor
    numbers: Tensor | None  # int64 [2] on the device: keys that no longer count, keys that count
    table: Tensor | None = None  # int64 [pages, 3]
    page: int = 0

    @property
    def strides(self) -> tuple[int, int]:
        """From row to row and from head to head."""
        return self.keys.stride(0), self.keys.stride(1)


def applies(x: Tensor) -> bool:
    """These kernels may run on x: no gradients are wanted, and the backend resolves to Triton."""
    if torch.is_grad_enabled():
        return False
    return resolve_backend("attention", x.device, x.dtype)[0] == "triton"


def fits(keys: Tensor, values: Tensor) -> bool:
    """Keys and values [B, Hkv, N, Dh] lie as the kernel reads them."""
    same = keys.stride() == values.stride()
    return same and keys.stride(3) == 1 and keys.stride(2) == keys.shape[3]


def attend(q: Tensor, past: Past, num_past: int = 0, *, window: int = 0, waves: int = 1) -> Tensor:
    """q [B, H, L, Dh] over the keys of `past`, the queries' own at their end -> [B, L, H * Dh].

    `num_past` keys stand before the queries' own, unless `past.numbers` says how many. `window` limits each query
    to its last keys (0: to none). The keys are split so that the device is filled `waves` times.
    """
    from spatial_ttt.model.kernels import attention_triton as kernels

    return kernels.attend(q, past, num_past, window=window, waves=waves)


def append(k: Tensor, v: Tensor, past: Past) -> None:
    """Write keys and values [B, Hkv, L, Dh] behind those of `past`; its numbers are the caller's to move on."""
    from spatial_ttt.model.kernels import attention_triton as kernels

    kernels.append(k, v, past)


def plain_append(k: Tensor, v: Tensor, past: Past) -> tuple[Tensor, Tensor]:
    """The same in torch operations, without pages; returns all that counts then, as views. The host asks the device."""
    assert past.numbers is not None
    start, count = past.numbers.tolist()
    first, stop = start + count, start + count + k.shape[2]
    past.keys[:, :, first:stop], past.values[:, :, first:stop] = k, v
    return past.keys[:, :, start:stop], past.values[:, :, start:stop]
