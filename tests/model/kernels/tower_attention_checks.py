"""The tower's attention kernel against the definition: odd numbers of patches, heads that are no power of two."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.model.kernels.check import Check, each_way


def plain(qkv: Tensor, num_heads: int) -> Tensor:
    """[S, P, 3 H Dh] -> [S, P, H Dh]."""
    q, k, v = qkv.unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def tower_attention(device: torch.device) -> Iterator[Check]:
    """Tiles and blocks that are full, short and alone; rows and channels beyond the end."""
    from spatial_ttt.model.kernels import interpreting
    from spatial_ttt.model.kernels import tower_attention_triton as kernels
    from spatial_ttt.model.kernels.tower_attention_triton import Tiles

    shapes = [  # slots, patches, heads, channels
        (2, 1, 2, 32), (1, 20, 1, 72), (2, 64, 1, 64), (1, 130, 2, 64), (2, 165, 1, 24), (1, 128, 1, 64),
        (1, 660, 1, 64),
    ]  # fmt: skip
    tilings: list[Tiles | None] = [
        Tiles(128, 64, 8, 3), Tiles(64, 64, 4, 3, careful=True), None
    ]  # fmt: skip
    if device.type == "cuda":
        shapes += [(3, 660, 16, 64), (2, 1024, 4, 72)]
    kinds = ((torch.float32, 3e-6), (torch.bfloat16, 1e-2))
    for (shape, (dtype, limit)), tiles in product(each_way(shapes, kinds, device), tilings):
        if interpreting() and dtype == torch.bfloat16:
            continue  # the interpreter does not multiply these
        if dtype == torch.float32 and tiles is not None and not interpreting():
            continue  # without tensor cores such tiles do not fit
        slots, patches, heads, dim = shape
        if tiles is not None and patches not in (20, 130, 660):
            continue  # the others are for the tiles that are chosen
        qkv = torch.randn(slots, patches, 3 * heads * dim, device=device).to(dtype)
        qkv[..., : heads * dim] *= 3  # else all keys would count about the same
        if patches == 130:
            # Weights relative to the last keys overflow.
            qkv[:, 5, heads * dim : 2 * heads * dim] *= 100
        fast = partial(kernels.attend, num_heads=heads, tiles=tiles)
        name = f"{shape} {dtype} {tiles}"
        yield Check(name, fast, partial(plain, num_heads=heads), (qkv,), limit, False)
