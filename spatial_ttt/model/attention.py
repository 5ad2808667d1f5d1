"""Causal attention over what has been seen: all of it (anchors) or the last W tokens (TTT layers).

Shapes: q [B, H, L, Dh]; k, v [B, Hkv, N, Dh] with rotary positions applied; grouped-query heads. Past keys
come first, so query i of L sees keys up to N - L + i. `branches` > 1 says that the L new tokens are
that many independent continuations of the same past, each L / branches long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from spatial_ttt.errors import ConfigError
from spatial_ttt.model import fused_attention
from spatial_ttt.model.branching import UnevenBranches
from spatial_ttt.model.kernels import cudnn_attention, runs
from spatial_ttt.model.kv_cache import Segment

IMPLEMENTATIONS = ("sdpa", "eager", "flash_attention_2")
"""Values of `attn_implementation`: torch's fused attention, plain matrix products, the flash-attn package."""


def causal_mask(
    length: int, total: int, window: int | None, branches: int, device: torch.device
) -> Tensor:
    """Who may see whom, [L, N] bool: causal, within `window` tokens, and not across branches."""
    past = total - length
    size = length // branches
    index = torch.arange(length, device=device)
    branch, step = index // size, index % size
    seen = torch.arange(past, device=device)
    age = past + step[:, None] - seen[None, :]  # of past keys, in tokens of this continuation
    own = step[:, None] - step[None, :]
    same = branch[:, None] == branch[None, :]
    visible = torch.cat((age >= 0, same & (own >= 0)), dim=1)
    if window is not None:
        visible &= torch.cat((age < window, own < window), dim=1)
    return visible


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int | None = None,
    branches: int = 1,
    implementation: str = "sdpa",
    behind: int = 0,
) -> Tensor:
    """Attention of the last L of N tokens, [B, H, L, Dh]; `window` limits it to the last W keys.

    Flash attention has no mask for branches; those run through SDPA. In memory so many finite tokens stand `behind` the
    L of q and the N of k and v: kernels may read beyond the end.
    """
    length, total = q.shape[2], k.shape[2]
    if not length:
        return q
    if implementation == "flash_attention_2" and branches == 1:
        return _flash(q, k, v, window)
    is_plain_window = implementation == "sdpa" and window is not None and branches == 1
    if is_plain_window and fused_attention.applies(q, differentiable=True):
        assert window is not None
        return fused_attention.window_attention(q, k, v, window, behind)
    attention = _plain if implementation == "eager" else _sdpa
    if branches > 1:
        return _attend_branches(q, k, v, branches, window, attention)
    if window is None or total <= window:
        return _attend_all(q, k, v, attention)
    if length == 1:
        return attention(q, k[:, :, -window:], v[:, :, -window:], None)
    # Blocks of queries keep the mask at [W, 2 W] however long the sequence is.
    pieces = []
    past = total - length
    for start in range(0, length, window):
        stop = min(length, start + window)
        low = max(0, past + start - window + 1)
        high = past + stop
        mask = causal_mask(stop - start, high - low, window, 1, q.device)
        pieces.append(attention(q[:, :, start:stop], k[:, :, low:high], v[:, :, low:high], mask))
    return torch.cat(pieces, dim=2) if len(pieces) > 1 else pieces[0]


def attend_past(
    q: Tensor,
    past: Sequence[Segment],
    own: Segment,
    *,
    branches: int = 1,
    implementation: str = "sdpa",
) -> Tensor:
    """Attention of L new tokens to all `past` segments and, causally, to the last keys of `own`.

    `own` ends with the new tokens' keys and values; earlier ones may stand before them.
    """
    if not q.shape[2]:
        return q
    if implementation == "sdpa" and branches == 1 and fused_attention.applies(q):
        return fused_attention.segment_attention(q, past, *own)
    keys, values = zip(*past, own, strict=True)
    if len(keys) > 1:
        return attend(
            q,
            torch.cat(keys, 2),
            torch.cat(values, 2),
            branches=branches,
            implementation=implementation,
        )
    return attend(q, keys[0], values[0], branches=branches, implementation=implementation)


def _attend_branches(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    branches: int,
    window: int | None,
    attention: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor],
) -> Tensor:
    """Every continuation as a batch row of its own: its keys are the past it may see and its own tokens.

    A mask over all continuations at once would spend most of its products on pairs that never meet.
    """
    length, total = q.shape[2], k.shape[2]
    if isinstance(branches, UnevenBranches):
        return attention(q, k, v, branches.bias(total - length, window, q.dtype))
    size, past = length // branches, total - length
    first = 0 if window is None else max(0, past - window + 1)

    def rows(
        x: Tensor,
    ) -> Tensor:  # [B, Hkv, N, Dh] -> [B * branches, Hkv, past - first + size, Dh]
        own = x[:, :, past:].unflatten(2, (branches, size)).transpose(1, 2)
        seen = x[:, None, :, first:past].expand(-1, branches, -1, -1, -1)
        return torch.cat((seen, own), dim=3).flatten(0, 1)

    queries = q.unflatten(2, (branches, size)).transpose(1, 2).flatten(0, 1)
    mask = causal_mask(size, past - first + size, window, 1, q.device)
    out = attention(queries, rows(k), rows(v), mask)
    return out.unflatten(0, (-1, branches)).transpose(1, 2).flatten(2, 3)


_QUERY_BLOCK = 1024


def _attend_all(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attention: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor],
) -> Tensor:
    length, total = q.shape[2], k.shape[2]
    if length == 1:
        return attention(q, k, v, None)
    if length == total and attention is _sdpa:
        if cudnn_attention.applies(q, k):
            return cudnn_attention.attend(q, k, v)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    pieces = []
    for start in range(0, length, _QUERY_BLOCK):
        stop = min(length, start + _QUERY_BLOCK)
        high = total - length + stop
        mask = causal_mask(stop - start, high, None, 1, q.device)
        pieces.append(attention(q[:, :, start:stop], k[:, :, :high], v[:, :, :high], mask))
    return torch.cat(pieces, dim=2) if len(pieces) > 1 else pieces[0]


def _sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)


def _plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    groups = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
    scores = (q @ k.mT) * q.shape[-1] ** -0.5
    if mask is not None:
        is_bias = mask.dtype != torch.bool
        scores = scores + mask if is_bias else scores.masked_fill(~mask, float("-inf"))
    exact = torch.promote_types(q.dtype, torch.float32)
    return scores.softmax(-1, dtype=exact).to(q.dtype) @ v


def _flash(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """The flash-attn package: causal from the bottom right, a window of W keys is (W - 1, 0)."""
    from flash_attn import flash_attn_func

    if q.dtype not in (torch.float16, torch.bfloat16):
        raise ConfigError(
            f"flash_attention_2 computes in bfloat16 or float16, the model is in "
            f"{str(q.dtype).removeprefix('torch.')}; load it in bfloat16 or use attn_implementation='sdpa'"
        )
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    reach = (-1, -1) if window is None else (window - 1, 0)
    return flash_attn_func(q, k, v, causal=True, window_size=reach).transpose(1, 2)


def keep_window(
    cache: tuple[Tensor, Tensor] | None, k: Tensor, v: Tensor, room: int = 0
) -> tuple[Tensor, Tensor]:
    """Past and new keys and values joined: [B, Hkv, <= W + L, Dh] each; slice the last W to carry on.

    With `room` the new ones stand behind free memory for as many tokens as the past has, which is then filled.
    """
    if cache is None:
        return k, v
    if not room:
        return torch.cat((cache[0], k), dim=2), torch.cat((cache[1], v), dim=2)
    wide = _with_room(k, room), _with_room(v, room)
    _copy(cache, (wide[0][:, :, :room], wide[1][:, :, :room]))
    return wide


def _with_room(x: Tensor, room: int) -> Tensor:
    """A view of x [B, Hkv, L, Dh] that begins `room` tokens earlier."""
    shape = (*x.shape[:2], room + x.shape[2], x.shape[3])
    return x.as_strided(shape, x.stride(), x.storage_offset() - room * x.stride(2))


def last(k: Tensor, v: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """The last W tokens of keys and values [B, Hkv, N, Dh], as copies that do not keep the rest alive."""
    if k.shape[2] <= window:
        return k, v
    latest = k[:, :, -window:], v[:, :, -window:]
    if torch.is_grad_enabled():
        return latest[0].clone(), latest[1].clone()
    shape = (*k.shape[:2], window, k.shape[3])
    made = k.new_empty(shape), v.new_empty(shape)
    _copy(latest, made)
    return made


def _copy(sources: tuple[Tensor, Tensor], places: tuple[Tensor, Tensor]) -> None:
    if runs.applies(sources, places):
        runs.copy(sources, places)
        return
    for to, x in zip(places, sources, strict=True):
        to.copy_(x)
