"""Attention on a CUDA device in half precision: the fastest kernel torch offers for each shape.

Chosen on an H200 (benchmarks/attention.py): windows and short queries run on the built-in
FlashAttention; many queries over whole pages on cuDNN (550 against 310 TFLOP/s). Past segments need
no mask, so each is attended alone and the parts are merged by their log-sum-exps.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from spatial_ttt.model import kv_cache
from spatial_ttt.model.kernels import attention as kernel
from spatial_ttt.model.kv_cache import Segment

log = logging.getLogger(__name__)

CUDNN_QUERIES = 512
"""With fewer queries cuDNN is slower than FlashAttention."""

WINDOW_QUERIES = 512
"""With fewer queries than this FlashAttention, which splits the keys, reads windows."""

QUERY_STEP = 256
"""cuDNN plans every new shape for tens of milliseconds: queries are padded, and only whole pages go to it."""


def applies(q: Tensor, *, differentiable: bool = False) -> bool:
    """These kernels can run: on CUDA, in half precision; gradients only pass through `window_attention`."""
    half = q.dtype in (torch.bfloat16, torch.float16)
    wanted = differentiable or not torch.is_grad_enabled()
    fits = q.device.type == "cuda" and half and wanted
    _tell(q.device.type, str(q.dtype), fits)
    return fits


@lru_cache(maxsize=16)
def _tell(device: str, dtype: str, fits: bool) -> None:
    which = "FlashAttention and cuDNN" if fits else "SDPA with explicit masks"
    log.info("attention: %s (%s, %s)", which, device, dtype)


def window_attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """The last L of N tokens over the last `window` keys each, [B, H, L, Dh]; differentiable."""
    many = q.shape[2] >= WINDOW_QUERIES and q.shape[3] in (64, 128)
    if many and kernel.applies(q) and kernel.fits(k, v):
        out = kernel.attend(q, kernel.Past(k, v, None), k.shape[2] - q.shape[2], window=window)
        return out.unflatten(2, (q.shape[1], -1)).transpose(1, 2)
    return _flash(q, k, v, causal=True, window=window)[0]


def segment_attention(q: Tensor, past: Sequence[Segment], k: Tensor, v: Tensor) -> Tensor:
    """L tokens over all past segments and, causally, over themselves: q [B, H, L, Dh]."""
    out, lse = _part(q, k, v, causal=True)
    if not past:
        return out
    length, total = q.shape[2], out.float()
    wide = q
    if length >= CUDNN_QUERIES and length % QUERY_STEP:
        wide = F.pad(q, (0, 0, 0, -length % QUERY_STEP))
    for keys, values in past:
        if length >= CUDNN_QUERIES and keys.shape[2] == kv_cache.PAGE_TOKENS:
            other, other_lse = _page(wide, length, keys, values)
        else:
            other, other_lse = _part(q, keys, values, causal=False)
        total, lse = _merge(total, lse, other, other_lse)
    return total.to(q.dtype)


def _merge(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Two partial softmaxes as one; out [B, H, L, Dh] float32, lse [B, H, L]."""
    share = torch.sigmoid(other_lse - lse)
    merged = torch.lerp(out, other.float(), share[..., None])
    return merged, torch.logaddexp(lse, other_lse)


def _page(q: Tensor, length: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The first `length` queries over a whole page."""
    got = torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, None, True, 0.0, False, False)
    return got[0][:, :, :length], got[1].reshape(q.shape[:3])[..., :length].float()


def _part(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    return _flash(q, k, v, causal=causal, window=None)


def _flash(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool, window: int | None
) -> tuple[Tensor, Tensor]:
    """Output [B, H, L, Dh] and log-sum-exp [B, H, L]; causal means aligned at the last key."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    sides = {} if window is None else {"window_size_left": window - 1, "window_size_right": 0}
    got = torch.ops.aten._flash_attention_forward(
        q, k, v, None, None, q.shape[1], k.shape[1], 0.0, causal, False, **sides
    )
    return got[0].transpose(1, 2), got[1][..., : q.shape[1]].float()
