"""Attention on a CUDA device in half precision: the fastest kernel torch offers for each shape.

Chosen on an H200 (benchmarks/attention.py): short queries run on the built-in FlashAttention, windows of many queries
on the streaming kernel, in training on cuDNN (`kernels.cudnn_attention`) where its interface is installed, many queries
over whole pages on cuDNN in any case. Past segments need no mask, so each is attended alone and the parts are merged by
their log-sum-exps.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial

import torch
from torch import Tensor
from torch.nn import functional as F

from spatial_ttt.model import kv_cache
from spatial_ttt.model.kernels import attention as kernel
from spatial_ttt.model.kernels import cudnn_attention
from spatial_ttt.model.kv_cache import Segment

log = logging.getLogger(__name__)

CUDNN_QUERIES = 512
"""With fewer queries cuDNN is slower than FlashAttention."""

WINDOW_QUERIES = 512
"""With fewer queries than this FlashAttention, which splits the keys, reads windows."""

QUERY_STEP = 128
"""cuDNN plans every new shape for tens of milliseconds: queries are padded, and keys go to it in whole pages or, for
long pieces, in stretches of few lengths."""

LONG_QUERIES = 4096
"""With so many queries cuDNN reads the queries' own keys and a page's part too (700 against 310 TFLOP/s)."""

STRETCHES = (8192, 4096, 2048, 1024)
"""Lengths in which it reads a page's part; the rest, which is shorter, goes to FlashAttention.

They are copied: strides are a part of a plan, and those of a tail change as it grows.
"""


def padding(length: int) -> int:
    """How many tokens of zeros to make behind a long piece, so that cuDNN reads it without a copy."""
    return -length % QUERY_STEP if length >= LONG_QUERIES else 0


def reads_apart(q: Tensor, k: Tensor) -> bool:
    """Keys of these queries alone are a part of their own, which is best given as they were made: dense."""
    return q.shape[2] == k.shape[2] and q.shape[2] >= LONG_QUERIES


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


Part = Callable[[], tuple[Tensor, Tensor]]
"""Output and log-sum-exp over some of the keys, when called; queries may be padded."""


def window_attention(q: Tensor, k: Tensor, v: Tensor, window: int, behind: int = 0) -> Tensor:
    """The last L of N tokens over the last `window` keys each, [B, H, L, Dh]; differentiable.

    `behind` as in `attention.attend`.
    """
    if cudnn_attention.applies(q, k):
        return cudnn_attention.attend(q, k, v, window)
    if cudnn_attention.reads_window(q, k, window, behind):
        return cudnn_attention.attend_window(q, k, v, window)
    many = q.shape[2] >= WINDOW_QUERIES and q.shape[3] in (64, 128)
    if many and kernel.applies(q) and kernel.fits(k, v):
        out = kernel.attend(q, kernel.Past(k, v, None), k.shape[2] - q.shape[2], window=window)
        return out.unflatten(2, (q.shape[1], -1)).transpose(1, 2)
    return _flash(q, k, v, causal=True, window=window)[0]


def segment_attention(q: Tensor, past: Sequence[Segment], k: Tensor, v: Tensor) -> Tensor:
    """L tokens over all past segments and, causally, over themselves: q [B, H, L, Dh]."""
    if q.shape[2] >= LONG_QUERIES and k.shape[2] > q.shape[2]:
        before = k.shape[2] - q.shape[2]
        past = (*past, (k[:, :, :before], v[:, :, :before]))
        k, v = k[:, :, before:], v[:, :, before:]
    if not past:
        return _part(q, k, v, causal=True)[0]
    parts = _plans(q, past, k, v)
    if kernel.applies(q):
        return _merged(q, parts)
    length = q.shape[2]
    out, lse = next(parts)()
    total, lse = out[:, :, :length].float(), lse[..., :length]
    for part in parts:
        other, other_lse = part()
        total, lse = _merge(total, lse, other[:, :, :length], other_lse[..., :length])
    return total.to(q.dtype)


def _merged(q: Tensor, parts: Iterator[Part]) -> Tensor:
    """All parts as one, in place; tokens of the result lie side by side. Parts are large: each goes once it is read."""
    from spatial_ttt.model.kernels import merging_triton

    batch, heads, length, dim = q.shape
    out, lse = next(parts)()
    total, lse = out[:, :, :length].float().contiguous(), lse[..., :length].contiguous()
    del out
    part: Part | None = next(parts)
    done = None
    while part:
        other, other_lse = part()
        part = None  # its keys may be copies: they go before the next part's are made
        part = next(parts, None)
        done = None if part else q.new_empty(batch, length, heads, dim).transpose(1, 2)
        merging_triton.merge(total, lse, other, other_lse.contiguous(), done)
        del other, other_lse
    assert done is not None  # the last part's
    return done


def _plans(q: Tensor, past: Sequence[Segment], k: Tensor, v: Tensor) -> Iterator[Part]:
    """How each part of the keys is read; the first is the queries' own."""
    length, wide = q.shape[2], q
    spare = -length % QUERY_STEP
    if length >= CUDNN_QUERIES and spare:
        wide = F.pad(q, (0, 0, 0, spare))
    is_long = length >= LONG_QUERIES
    if is_long:
        # What is padded only padding sees.
        own = [F.pad(x, (0, 0, 0, spare)) if spare else x.contiguous() for x in (k, v)]
        yield partial(_cudnn, wide, own.pop(0), own.pop(), causal=True)
    else:
        yield partial(_part, q, k, v, causal=True)
    for keys, values in past:
        if length >= CUDNN_QUERIES and keys.shape[2] == kv_cache.PAGE_TOKENS:
            yield partial(_cudnn, wide, keys, values, causal=False)
            continue
        start = 0
        for size in STRETCHES if is_long else ():
            while keys.shape[2] - start >= size:
                stretch = (x[:, :, start : start + size].contiguous() for x in (keys, values))
                yield partial(_cudnn, wide, *stretch, causal=False)
                start += size
        if start < keys.shape[2]:
            yield partial(_part, q, keys[:, :, start:], values[:, :, start:], causal=False)


def _merge(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Two partial softmaxes as one; out [B, H, L, Dh] float32, lse [B, H, L]."""
    share = torch.sigmoid(other_lse - lse)
    merged = torch.lerp(out, other.float(), share[..., None])
    return merged, torch.logaddexp(lse, other_lse)


def _cudnn(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    """As `_part`, by cuDNN: causal for as many keys as queries."""
    run = torch.ops.aten._scaled_dot_product_cudnn_attention
    got = run(q, k, v, None, True, 0.0, causal, False)
    return got[0], got[1].reshape(q.shape[:3]).float()


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
