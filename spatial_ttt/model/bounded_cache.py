"""Anchors that never grow: first blocks, latest blocks, and an even sample of those between.

Tokens are kept in blocks. A query sees what was kept when its own block began, and its own block up to
itself, so the answer does not depend on how the stream is cut. The rule, in full:

    the first `sink_blocks` blocks stay;
    the latest `recent_blocks` full blocks stay;
    a block that leaves the latest is kept if its number among those that left divides by the stride;
    when more than `older_blocks` are kept so, every second goes and the stride doubles.

With `bits` 8, full blocks hold 8-bit keys and values with one scale per token and head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from spatial_ttt.errors import BudgetError, ConfigError
from spatial_ttt.model.configuration import SpatialTTTConfig
from spatial_ttt.model.kv_cache import Segment


class AnchorPolicy(NamedTuple):
    """What a bounded anchor keeps."""

    sink_blocks: int
    recent_blocks: int
    older_blocks: int
    block_tokens: int
    bits: int  # 16: as computed; 8: full blocks are quantised

    @property
    def max_tokens(self) -> int:
        """Most tokens kept, the open block included."""
        return (self.sink_blocks + self.recent_blocks + self.older_blocks + 1) * self.block_tokens


class Block(NamedTuple):
    """Keys and values [B, Hkv, block, Dh]; 8-bit ones with scales [B, Hkv, block, 1]."""

    keys: Tensor
    values: Tensor
    key_scale: Tensor | None
    value_scale: Tensor | None


class BoundedCache(NamedTuple):
    """The keys and values of a bounded anchor; immutable."""

    policy: AnchorPolicy
    sinks: tuple[Block, ...]
    older: tuple[Block, ...]
    recent: tuple[Block, ...]
    open: Segment | None  # the block that is filling
    num_left: int  # blocks that left the latest
    stride: int
    length: int  # tokens seen


def check_policy(policy: AnchorPolicy) -> AnchorPolicy:
    """Return a sound policy; raise ConfigError that says what is wrong."""
    if (
        policy.block_tokens < 1
        or min(policy[:3]) < 0
        or policy.recent_blocks + policy.sink_blocks < 1
    ):
        raise ConfigError(
            f"want block_tokens >= 1 and at least one sink or recent block, got {policy}"
        )
    if policy.bits not in (8, 16):
        raise ConfigError(f"anchor bits must be 8 or 16, got {policy.bits}")
    return policy


def bytes_of_policy(policy: AnchorPolicy, config: SpatialTTTConfig, dtype: torch.dtype) -> int:
    """Bytes all anchors of a model hold at most."""
    text = config.text_config
    anchors = config.hybrid_layers.count("anchor")
    per_token = 2 * text.num_key_value_heads * text.head_dim * dtype.itemsize
    kept = per_token
    if policy.bits == 8:
        kept = 2 * text.num_key_value_heads * (text.head_dim + dtype.itemsize)
    full = policy.sink_blocks + policy.recent_blocks + policy.older_blocks
    return anchors * policy.block_tokens * (full * kept + per_token)


def policy_within(
    budget_bytes: int,
    config: SpatialTTTConfig,
    dtype: torch.dtype,
    *,
    block_tokens: int = 256,
    bits: int = 16,
) -> AnchorPolicy:
    """The largest policy within a byte budget: one sink block, half of the rest recent, half older.

    Raises BudgetError when not even four blocks fit.
    """
    least = AnchorPolicy(1, 1, 1, block_tokens, bits)
    step = bytes_of_policy(
        AnchorPolicy(1, 2, 1, block_tokens, bits), config, dtype
    ) - bytes_of_policy(least, config, dtype)
    spare = budget_bytes - bytes_of_policy(least, config, dtype)
    if spare < 0:
        raise BudgetError(
            f"bounded anchors need at least {budget_bytes - spare} bytes for blocks of {block_tokens} tokens, "
            f"got {budget_bytes}; raise the budget or shrink the blocks"
        )
    more = spare // step if step else 0
    return AnchorPolicy(1, 1 + more - more // 2, 1 + more // 2, block_tokens, bits)


def empty_cache(policy: AnchorPolicy) -> BoundedCache:
    """Nothing seen yet."""
    return BoundedCache(check_policy(policy), (), (), (), None, 0, 1, 0)


AttendPast = Callable[[Tensor, tuple[Segment, ...], Segment], Tensor]
"""(queries, past segments, own keys and values) -> outputs, as `attention.attend_past`."""


def attend_bounded(
    q: Tensor, k: Tensor, v: Tensor, cache: BoundedCache, attend: AttendPast
) -> tuple[Tensor, BoundedCache]:
    """Attend L new tokens, [B, H, L, Dh], block by block, and keep them; without queries only keep them."""
    outputs = [q[:, :, :0]]
    start = 0
    while start < k.shape[2]:
        filled = 0 if cache.open is None else cache.open[0].shape[2]
        stop = min(k.shape[2], start + cache.policy.block_tokens - filled)
        own = (k[:, :, start:stop], v[:, :, start:stop])
        outputs.append(attend(q[:, :, start:stop], _kept(cache, q.dtype), own))
        cache = _extend(cache, own)
        start = stop
    return torch.cat(outputs, dim=2), cache


def _kept(cache: BoundedCache, dtype: torch.dtype) -> tuple[Segment, ...]:
    blocks = [_read(block, dtype) for block in (*cache.sinks, *cache.older, *cache.recent)]
    if cache.open is not None:
        blocks.append(cache.open)
    if not blocks:
        return ()
    keys, values = zip(*blocks, strict=True)
    return ((torch.cat(keys, dim=2), torch.cat(values, dim=2)),)


def _extend(cache: BoundedCache, own: Segment) -> BoundedCache:
    size = own[0].shape[2]
    if cache.open is not None:
        own = (torch.cat((cache.open[0], own[0]), dim=2), torch.cat((cache.open[1], own[1]), dim=2))
    cache = cache._replace(length=cache.length + size, open=own)
    if own[0].shape[2] < cache.policy.block_tokens:
        return cache
    return close_block(cache._replace(open=None), _write(own, cache.policy.bits))


def close_block(cache: BoundedCache, block: Block) -> BoundedCache:
    """File a full block by the rule."""
    policy = cache.policy
    if len(cache.sinks) < policy.sink_blocks:
        return cache._replace(sinks=(*cache.sinks, block))
    recent = (*cache.recent, block)
    if len(recent) <= policy.recent_blocks:
        return cache._replace(recent=recent)
    leaving, recent = recent[0], recent[1:]
    older, stride = cache.older, cache.stride
    if policy.older_blocks and cache.num_left % stride == 0:
        older = (*older, leaving)
        if len(older) > policy.older_blocks:
            older, stride = older[::2], 2 * stride
    return cache._replace(recent=recent, older=older, stride=stride, num_left=cache.num_left + 1)


def _write(segment: Segment, bits: int) -> Block:
    if bits == 16:
        return Block(segment[0].clone(), segment[1].clone(), None, None)
    keys, key_scale = _quantise(segment[0])
    values, value_scale = _quantise(segment[1])
    return Block(keys, values, key_scale, value_scale)


def _quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    scale = (x.abs().amax(dim=-1, keepdim=True) / 127).clamp(min=torch.finfo(x.dtype).tiny)
    return (x / scale).round().clamp(-127, 127).to(torch.int8), scale


def _read(block: Block, dtype: torch.dtype) -> Segment:
    if block.key_scale is None or block.value_scale is None:
        return block.keys, block.values
    return block.keys.to(dtype) * block.key_scale, block.values.to(dtype) * block.value_scale
