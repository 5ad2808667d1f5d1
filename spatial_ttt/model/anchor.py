"""Grouped-query attention with Qwen3-VL's projections: all that an anchor is, and what a TTT layer begins with."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from spatial_ttt.errors import ConfigError
from spatial_ttt.model import bounded_blocks, fused_attention
from spatial_ttt.model.attention import attend_past
from spatial_ttt.model.bounded_cache import BoundedCache, attend_bounded
from spatial_ttt.model.kernels import shaping, trained_heads
from spatial_ttt.model.kv_cache import KVCache, append
from spatial_ttt.model.layers import RMSNorm, linear_behind, linear_together, rotate, taken

AnchorCache = KVCache | BoundedCache


class Attention(nn.Module):
    """Grouped-query projections with per-head RMSNorm; full causal attention (an anchor)."""

    def __init__(self, text: Any) -> None:
        super().__init__()
        self._text = text
        self.num_heads = text.num_attention_heads
        self.num_kv_heads = text.num_key_value_heads
        self.head_dim = text.head_dim
        inner, kv, bias = (
            self.num_heads * self.head_dim,
            self.num_kv_heads * self.head_dim,
            text.attention_bias,
        )
        self.q_proj = nn.Linear(text.hidden_size, inner, bias=bias)
        self.k_proj = nn.Linear(text.hidden_size, kv, bias=bias)
        self.v_proj = nn.Linear(text.hidden_size, kv, bias=bias)
        self.o_proj = nn.Linear(inner, text.hidden_size, bias=bias)
        self.q_norm = RMSNorm(self.head_dim, text.rms_norm_eps)
        self.k_norm = RMSNorm(self.head_dim, text.rms_norm_eps)

    @property
    def implementation(self) -> str:
        """The configured `attn_implementation`; read at every call, since transformers lets it be changed."""
        return getattr(self._text, "_attn_implementation", None) or "sdpa"

    def project(self, x: Tensor, before: Tensor | None = None) -> Tensor:
        """x [B, L, D] -> queries, keys and values side by side [B, L, (H + 2 Hkv) * Dh], not normed yet.

        Those of `before` [B, N, ...] stand before them.
        """
        layers = (self.q_proj, self.k_proj, self.v_proj)
        if before is None:
            return linear_together(self, x, layers)
        return linear_behind(before, self, x, layers)

    def normed(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What `project` returns -> q [B, L, H, Dh], k and v [B, L, Hkv, Dh], normed but not rotated."""
        return normed_heads(self.q_norm, self.k_norm, qkv, self.sizes)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Heads of queries, heads of keys, channels of a head."""
        return self.num_heads, self.num_kv_heads, self.head_dim

    def heads(self, qkv: Tensor, rope: Tensor, zeros: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """What `project` returns -> q [B, H, L, Dh], k and v [B, Hkv, L, Dh], normed and rotated.

        Where kernels run, so many `zeros` more stand at the end of each.
        """
        if shaping.applies(qkv):
            norms, kv_heads = self.head_norms, self.num_kv_heads
            return shaping.heads(qkv, rope, norms, kv_heads, None, zeros=zeros)[:3]
        if trained_heads.applies(qkv, self.q_norm.weight):
            norms, kv_heads = self.head_norms, self.num_kv_heads
            return trained_heads.heads(qkv, rope, norms, kv_heads, None)[:3]
        q, k, v = (t.transpose(1, 2) for t in self.normed(qkv))
        return rotate(q, rope), rotate(k, rope), v

    @property
    def head_norms(self) -> shaping.HeadNorms:
        """The per-head norms, for the kernel."""
        return shaping.HeadNorms(self.q_norm.weight, self.k_norm.weight, self.q_norm.eps)

    def attend_all(
        self,
        x: Tensor | list[Tensor],
        rope: Tensor,
        cache: AnchorCache | None,
        branches: int = 1,
        wanted: int | None = None,
    ) -> tuple[Tensor, AnchorCache]:
        """Attend to all tokens seen, or to those a bounded cache keeps; x [B, L, D] -> [B, L, D].

        With `wanted` only for the last so many tokens; all are remembered. x may be given away (see `layers.taken`).
        """
        x = taken(x)
        first = 0 if wanted is None else max(0, x.shape[1] - wanted)
        is_padded = isinstance(cache, KVCache) and not first and self._reads_parts(x, branches)
        zeros = fused_attention.padding(x.shape[1]) if is_padded else 0
        parts = list(self.heads(self.project(x), rope, zeros))
        del x  # large, as are keys and values once they are remembered
        if isinstance(cache, BoundedCache) and wanted != 0:  # reads block by block, as it writes
            out, grown = self.remember(parts, cache, branches)
            return self.o_proj(out[:, first:]), grown
        parts[0] = parts[0][:, :, first:]
        out, grown = self.remember(parts, cache, branches, zeros)
        return self.o_proj(out), grown

    def _reads_parts(self, x: Tensor, branches: int) -> bool:
        """Past and new keys are read part by part, as `fused_attention` does, with our kernels around it."""
        is_plain = branches == 1 and self.implementation == "sdpa"
        return is_plain and fused_attention.applies(x) and shaping.applies(x)

    def remember(
        self, parts: list[Tensor], cache: AnchorCache | None, branches: int = 1, zeros: int = 0
    ) -> tuple[Tensor, AnchorCache]:
        """Append keys and values [B, Hkv, L, Dh] and attend with q [B, H, L, Dh] -> [B, L, H * Dh].

        They are the `parts` q, k, v, which are given away. Fewer queries are those of the last tokens; a bounded cache
        takes all or none. At the end of each part may stand so many `zeros` more (see `heads`).
        """
        q, k, v = parts
        parts.clear()
        attend = partial(attend_past, branches=branches, implementation=self.implementation)
        if isinstance(cache, BoundedCache):
            if branches > 1:
                raise ConfigError(
                    "branches are for training, with exact anchors; ask each on its own fork"
                )
            if bounded_blocks.applies(k, cache):
                out, kept = bounded_blocks.attend_blocks(q, k, v, cache)
            else:
                out, kept = attend_bounded(q, k, v, cache, attend)
            return out.transpose(1, 2).flatten(2), kept
        length = k.shape[2] - zeros
        past = cache.segments if cache is not None else ()
        grown = append(cache, k[:, :, :length], v[:, :, :length])
        *before, latest = grown.segments
        held = latest[0].shape[2] - length
        if held >= 0 and self._reads_parts(q, branches) and fused_attention.reads_apart(q, k):
            tail = latest[0][:, :, :held], latest[1][:, :, :held]
            past = (*before, tail) if held else tuple(before)
        elif held >= 0:
            # The new keys lie behind the tail's: attend to both as one.
            past, (k, v) = tuple(before), latest
        out = attend(q, past, (k, v))
        return out[:, :, : q.shape[2] - zeros].transpose(1, 2).flatten(2), grown


def normed_heads(
    q_norm: nn.Module, k_norm: nn.Module, qkv: Tensor, sizes: tuple[int, int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """`Attention.normed` without its module, so that compiled code can be shared by all of them."""
    heads, kv_heads, head_dim = sizes
    q, k, v = qkv.unflatten(-1, (-1, head_dim)).split((heads, kv_heads, kv_heads), dim=2)
    return q_norm(q), k_norm(k), v
