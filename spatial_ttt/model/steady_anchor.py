"""An anchor in its steady state: one captured step where a kernel can read a cache that grows, else two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from torch import Tensor

from spatial_ttt.model import kv_cache
from spatial_ttt.model.anchor import AnchorCache
from spatial_ttt.model.decoder import AnchorLayer
from spatial_ttt.model.fused_attention import CUDNN_QUERIES
from spatial_ttt.model.kernels import attention
from spatial_ttt.model.kernels.attention import Past
from spatial_ttt.model.kernels.captured import Graphs
from spatial_ttt.model.kv_cache import KVCache
from spatial_ttt.model.state import Tokens, tensors
from spatial_ttt.model.steady_graphs import Buffers, Moves, keep_latest, taps
from spatial_ttt.model.steady_window import PageTable

Step = Callable[[], Any]


def through_pages(layer: AnchorLayer, tokens: Tokens, past: Past) -> Tokens:
    """The layer's step where a kernel reads the cache page by page; whoever calls moves its numbers on."""
    attn = layer.self_attn
    q, k, v = attn.heads(attn.project(layer.input_layernorm(tokens.hidden)), tokens.rope)
    attention.append(k, v, past)
    return layer.finish(tokens, attn.o_proj(attention.attend(q, past, waves=2)))


@dataclass
class SteadyAnchor:
    """An anchor, whose keys grow: one graph where the kernel applies, or graphs around its attention."""

    layer: AnchorLayer
    buffers: Buffers
    graphs: Graphs
    cache: AnchorCache | None = None
    table: PageTable | None = None
    known: dict[Any, tuple[Step, ...] | None] = field(default_factory=dict)

    def load(self, state: AnchorCache | None, moves: Moves) -> None:
        """Take a cache over; caches share their pages and copy their tails when written: nothing moves."""
        self.cache = state

    def own_tensors(self) -> Iterator[Tensor]:
        """Everything the layer keeps in memory, but for the cache: that is its stream's."""
        yield from tensors(None if self.table is None else self.table.past)

    def push(self, tokens: Tokens, *, needs_output: bool = True) -> Tokens:
        """The layer's step; without output only its keys and values are kept."""
        tokens = self.buffers.put_tokens(tokens)
        if needs_output and self._is_paged(tokens):
            return self._push_paged(tokens)
        shape = (*tokens.hidden.shape[:2], self.layer.self_attn.o_proj.in_features)
        attended = self.buffers.like("attended", tokens.hidden.new_empty(shape))
        before, after = self._steps(
            "parts", tokens, partial(self._before, tokens), partial(self._after, tokens, attended)
        )
        query, keys, values = before()
        keys, values = keys.clone(), values.clone()  # the cache may keep them as they are
        if not needs_output:
            query = query[:, :, :0]
        out, self.cache = self.layer.self_attn.remember([query, keys, values], self.cache)
        if not needs_output:
            return tokens
        attended.copy_(out)
        return cast(Tokens, after())

    def _is_paged(self, tokens: Tokens) -> bool:
        """The kernel can attend to pages and tail, and no other is faster for so many tokens."""
        return (
            isinstance(self.cache, KVCache)
            and 0 < tokens.length < CUDNN_QUERIES
            and attention.applies(tokens.hidden)
            and PageTable.takes(self.cache, kv_cache.PAGE_TOKENS, tokens.length)
        )

    def _push_paged(self, tokens: Tokens) -> Tokens:
        cache = kv_cache.reserve(cast(KVCache, self.cache), tokens.length)
        if self.table is None:
            self.table = PageTable(cache, kv_cache.PAGE_TOKENS)
        self.table.point_at(cache)
        (step,) = self._steps("pages", tokens, partial(self._whole, tokens, self.table))
        ready = step()
        self.cache = kv_cache.advanced(cache, tokens.length)
        return cast(Tokens, ready)

    def _steps(self, kind: str, tokens: Tokens, *plain: Step) -> tuple[Step, ...]:
        """Steps as they are the first time, captured from the second time on."""
        key = (kind, tokens.layout, tokens.hidden.shape, taps(tokens))
        if key not in self.known or not tokens.length:
            keep_latest(self.known, key, None)
            return plain
        steps = self.known[key] or tuple(self.graphs.capture(step) for step in plain)
        keep_latest(self.known, key, steps)
        return steps

    def _before(self, tokens: Tokens) -> tuple[Tensor, Tensor, Tensor]:
        put = self.buffers.put
        q, k, v = self._heads(tokens)
        return put("query", q), put("key", k), put("value", v)

    def _whole(self, tokens: Tokens, table: PageTable) -> Tokens:
        return self.buffers.put_tokens(through_pages(self.layer, tokens, table.past))

    def _heads(self, tokens: Tokens) -> tuple[Tensor, Tensor, Tensor]:
        attn = self.layer.self_attn
        x = attn.project(self.layer.input_layernorm(tokens.hidden))
        return attn.heads(x, tokens.rope)

    def _after(self, tokens: Tokens, attended: Tensor) -> Tokens:
        mixed = self.layer.self_attn.o_proj(attended)
        return self.buffers.put_tokens(self.layer.finish(tokens, mixed))
