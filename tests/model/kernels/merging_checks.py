"""Parts of an attention joined in place against attention over all keys."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tests.model.kernels.check import Check


def merging(device: torch.device) -> Iterator[Check]:
    """Three parts, of padded queries, in two layouts."""
    from spatial_ttt.model.kernels import merging_triton as kernels

    for batch, heads, length, wide, dim in ((2, 3, 5, 8, 16), (1, 2, 21, 24, 12)):
        q, k, v = torch.randn(3, batch, heads, 40, dim, device=device)

        def part(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            scores = q @ k.mT
            return scores.softmax(-1) @ v, scores.logsumexp(-1)

        def fast(q: Tensor, k: Tensor, v: Tensor, length: int = length, wide: int = wide) -> Tensor:
            out, lse = (x.contiguous() for x in part(q[:, :, :length], k[:, :, :7], v[:, :, :7]))
            other, other_lse = part(q[:, :, :wide], k[:, :, 7:30], v[:, :, 7:30])
            side_by_side = other.transpose(1, 2).contiguous().transpose(1, 2)
            kernels.merge(out, lse, side_by_side, other_lse)
            done = torch.empty_like(out.transpose(1, 2)).transpose(1, 2)
            kernels.merge(out, lse, *part(q[:, :, :length], k[:, :, 30:], v[:, :, 30:]), done)
            return done

        def plain(q: Tensor, k: Tensor, v: Tensor, length: int = length) -> Tensor:
            return part(q[:, :, :length], k, v)[0]

        yield Check(f"{length} of {wide}", fast, plain, (q, k, v), 1e-5, False)
