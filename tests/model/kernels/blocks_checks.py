"""Bounded anchors in one launch against the rule, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from tests.model.kernels.check import Check


def blocks(device: torch.device) -> Iterator[Check]:
    """Sinks, a sample of the older and the latest blocks; pieces that end anywhere."""
    from spatial_ttt.model import bounded_blocks
    from spatial_ttt.model.attention import attend_past
    from spatial_ttt.model.bounded_cache import AnchorPolicy, attend_bounded, empty_cache
    from spatial_ttt.model.kernels import request_backend

    cases = [(1, 4, 2, 8, AnchorPolicy(1, 2, 2, 5, 16), 61, torch.float32, 1e-5)]
    cases += [(2, 2, 1, 16, AnchorPolicy(0, 1, 1, 16, 16), 70, torch.float32, 1e-5)]
    if device.type == "cuda":
        policy = AnchorPolicy(1, 3, 2, 256, 16)
        cases += [(1, 16, 8, 128, policy, 4001, torch.bfloat16, 1e-2)]
    for batch, heads, kv_heads, dim, policy, length, dtype, limit in cases:
        q = torch.randn(batch, heads, length, dim, device=device).to(dtype)
        k, v = torch.randn(2, batch, kv_heads, length, dim, device=device).to(dtype)
        cuts = (0, length // 20, length // 3, length // 3 + 1, length)

        def fast(
            q: Tensor, k: Tensor, v: Tensor, policy: AnchorPolicy = policy, cuts=cuts
        ) -> tuple[Tensor, ...]:  # type: ignore[no-untyped-def]
            cache, out = empty_cache(policy), []
            with request_backend("triton"):
                for start, stop in pairwise(cuts):
                    piece = (x[:, :, start:stop] for x in (q, k, v))
                    found, cache = bounded_blocks.attend_blocks(*piece, cache)
                    out.append(found)
            kept = [b.keys for b in (*cache.sinks, *cache.older, *cache.recent)]
            return torch.cat(out, dim=2), torch.cat([*kept, cache.open[0]], dim=2)

        def plain(
            q: Tensor, k: Tensor, v: Tensor, policy: AnchorPolicy = policy
        ) -> tuple[Tensor, ...]:
            out, cache = attend_bounded(q, k, v, empty_cache(policy), attend_past)
            kept = [b.keys for b in (*cache.sinks, *cache.older, *cache.recent)]
            return out, torch.cat([*kept, cache.open[0]], dim=2)

        yield Check(f"{policy} {dtype}", fast, plain, (q, k, v), limit, False)
