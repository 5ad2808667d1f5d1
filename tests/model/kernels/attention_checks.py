"""The attention kernel against the definition: whole buffers, windows in a larger one, and pages."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from tests.model.kernels.check import Check

PAGE = 32


def plain(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """[B, H, L, Dh] over [B, Hkv, N, Dh], the queries' own keys last -> [B, L, H * Dh]."""
    length, total = q.shape[2], k.shape[2]
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    at = torch.arange(total - length, total, device=q.device)[:, None]
    key = torch.arange(total, device=q.device)
    seen = key <= at
    if window:
        seen &= key > at - window
    scores = ((q @ k.mT) * q.shape[-1] ** -0.5).masked_fill(~seen, float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def attention(device: torch.device) -> Iterator[Check]:
    """Few and many queries, pages and shares that end anywhere, heads that are no power of two."""
    from spatial_ttt.model.kernels import attention_triton as kernels
    from spatial_ttt.model.kernels.attention import Past

    shapes = [  # batch, heads, KV heads, queries, keys before, channels, window, keys that no longer count
        (1, 4, 2, 5, 9, 8, 0, 0), (2, 4, 2, 7, 60, 16, 0, 0), (1, 4, 2, 40, 40, 8, 33, 3),
        (1, 2, 1, 21, 33, 16, 33, 0), (1, 4, 2, 1, 70, 8, 0, 0), (1, 4, 2, 50, 0, 8, 9, 0),
    ]  # fmt: skip
    types = [(torch.float32, 1e-5)]
    if device.type == "cuda":
        shapes += [
            (1, 16, 8, 174, 5000, 128, 0, 0), (1, 16, 8, 174, 2648, 128, 2648, 77),
            (1, 16, 8, 2610, 2648, 128, 2648, 0), (1, 16, 8, 1, 777, 128, 0, 0),
        ]  # fmt: skip
        types.append((torch.bfloat16, 1e-2))
    for shape, (dtype, limit) in product(shapes, types):
        batch, heads, kv_heads, length, before, dim, window, gone = shape
        q = torch.randn(batch, heads, length + 3, dim, device=device).to(dtype)[:, :, :length]
        k, v = torch.randn(2, batch, kv_heads, before + length, dim, device=device).to(dtype)
        tiles = kernels.Tiles(16, 16, 4, 1) if device.type == "cpu" else None
        for waves in (1, 8):

            def in_one(q: Tensor, k: Tensor, v: Tensor, waves: int = waves) -> Tensor:
                room = k.new_full((batch, kv_heads, gone + k.shape[2] + 5, dim), float("nan"))  # noqa: B023
                past = _past(room, room.clone(), gone, before)  # noqa: B023
                for to, x in ((past.keys, k), (past.values, v)):
                    to[:, :, gone : gone + before] = x[:, :, :before]  # noqa: B023
                kernels.append(k[:, :, before:], v[:, :, before:], past)  # noqa: B023
                found = kernels.attend(q, past, 0, window=window, waves=waves, tiles=tiles)  # noqa: B023
                told = Past(k.contiguous(), v.contiguous(), None)
                other = kernels.attend(q, told, before, window=window, waves=waves, tiles=tiles)  # noqa: B023
                return torch.stack((found, other))

            def in_pages(q: Tensor, k: Tensor, v: Tensor, waves: int = waves) -> Tensor:
                count = -(-k.shape[2] // PAGE)
                pages = torch.full(
                    (2, count, batch, kv_heads, PAGE + 8, dim), float("nan"), dtype=k.dtype, device=k.device  # noqa: B023
                )[:, :, :, :, :PAGE]  # fmt: skip
                for number in range(-(-before // PAGE)):  # noqa: B023
                    stop = min(before, (number + 1) * PAGE)  # noqa: B023
                    for to, x in zip(pages, (k, v), strict=True):
                        to[number, :, :, : stop - number * PAGE] = x[:, :, number * PAGE : stop]
                base = k.new_empty(batch, kv_heads, 1, dim)  # noqa: B023
                rows = [
                    [(x[n].data_ptr() - base.data_ptr()) // k.element_size() for x in pages]
                    + [pages.stride(3)]
                    for n in range(count)
                ]
                past = _past(base, base, 0, before)  # noqa: B023
                past = past._replace(
                    table=torch.tensor([*rows, [0, 0, 0]], device=k.device), page=PAGE
                )
                kernels.append(k[:, :, before:], v[:, :, before:], past)  # noqa: B023
                return kernels.attend(q, past, 0, waves=waves, tiles=tiles)  # noqa: B023

            def twice(q: Tensor, k: Tensor, v: Tensor, window: int = window) -> Tensor:
                return torch.stack([plain(q, k, v, window)] * 2)

            def once(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
                return plain(q, k, v, 0)

            name = f"{shape} {dtype} {waves}"
            yield Check(name, in_one, twice, (q, k, v), limit, False)
            if not window:
                yield Check(f"pages {name}", in_pages, once, (q, k, v), limit, False)


def _past(keys: Tensor, values: Tensor, gone: int, count: int):  # type: ignore[no-untyped-def]
    from spatial_ttt.model.kernels.attention import Past

    return Past(keys, values, torch.tensor([gone, count], device=keys.device))
