"""What the memory did with a slot, read off the session's state: cheap enough for every slot.

Per TTT layer:
    update    change of the fast weights in use, relative to their size; 0 unless a chunk was written
    surprise  size of the gradient that the slot's tokens added to the open chunk, per token
    gate      mean strength with which the layer's latest tokens read the fast weights

All layers are looked at together: on a GPU a few launches, and one answer that the host waits for.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from spatial_ttt.model.decoder import HybridDecoder, TTTLayer
from spatial_ttt.model.fast_weights import BriefState, FastState, FastWeights
from spatial_ttt.model.state import DecoderState, TTTState
from spatial_ttt.serve.timeline import MemoryNote
from spatial_ttt.session import StreamingSession
from spatial_ttt.video.frame import Frame

Fast = FastState | BriefState


def observe(session: StreamingSession, frame: Frame) -> MemoryNote | None:
    """Let a session watch one frame; what its memory did, where the frame completed a slot."""
    before = session.state
    if not session.observe([frame]):
        return None
    after, decoder = session.state, session.model.decoder
    return memory_note(decoder, before.decoder, after.decoder, after.num_slots - 1, frame.time)


@torch.no_grad()
def memory_note(
    decoder: HybridDecoder, before: DecoderState, after: DecoderState, slot: int, time: float
) -> MemoryNote:
    """Compare two states of a decoder that a slot lies between."""
    tokens = after.num_tokens - before.num_tokens
    sizes, layers, gates = _Sizes(), [], []
    for layer, old, new in zip(decoder.layers, before.layers, after.layers, strict=True):
        if isinstance(layer, TTTLayer) and isinstance(new, TTTState):
            earlier = old.fast if isinstance(old, TTTState) else None
            chunk = layer.self_attn.config.chunk_size
            layers.append(_look(earlier, new.fast, _has_written(earlier, new.fast, tokens, chunk), sizes))  # fmt: skip
            gates.append(_raw_gate(layer, new))
    if not layers:
        return MemoryNote(slot, time, (), (), ())
    figures = torch.cat((sizes.found(), _strengths(gates))).tolist()  # one copy from the device
    update = (figures[c] / figures[c + 1] if c is not None else 0.0 for c, _, _ in layers)
    surprise = (figures[a] / count if a is not None else 0.0 for _, a, count in layers)
    return MemoryNote(slot, time, tuple(update), tuple(surprise), tuple(figures[-len(gates) :]))


@dataclass
class _Sizes:
    """Sizes of matrices, asked for one by one and found together."""

    taken: list[FastWeights] = field(default_factory=list)
    less: list[FastWeights | None] = field(default_factory=list)

    def of(self, weights: FastWeights, less: FastWeights | None = None) -> int:
        """Where the size of `weights`, or of their difference from `less`, will be found."""
        self.taken.append(weights)
        self.less.append(less)
        return len(self.taken) - 1

    def found(self) -> Tensor:
        """All sizes, float32 [n]."""
        if not self.taken:
            return torch.zeros(0)
        whole = [list(weights) for weights in self.taken]
        changed = [n for n, less in enumerate(self.less) if less is not None]
        if changed:
            new = [x for n in changed for x in whole[n]]
            old = [x for n in changed for x in self.less[n] or ()]
            differences = iter(torch._foreach_sub(new, old))
            for n in changed:
                whole[n] = [next(differences) for _ in whole[n]]
        norms = torch.stack(torch._foreach_norm([x for parts in whole for x in parts]))
        return norms.float().unflatten(0, (len(whole), -1)).square().sum(1).sqrt()


def _has_written(old: Fast | None, new: Fast, tokens: int, chunk: int) -> bool:
    """Whether a chunk was written between two states, one of which may be a copy: the counts tell."""
    if old is None or old.weights is new.weights:
        return False
    if new.num_tokens == old.num_tokens and tokens % chunk:
        return False  # the layers before hold everything back
    return tokens >= chunk or new.num_tokens < old.num_tokens


def _look(
    old: Fast | None, new: Fast, has_written: bool, sizes: _Sizes
) -> tuple[int | None, int | None, int]:
    """Where to find the size of the change (that of the old weights comes next) and of what was added, and by how
    many tokens."""
    change = None
    if has_written and old is not None:
        change = sizes.of(new.weights, old.weights)
        sizes.of(old.weights)
    if new.gradient is None:
        return change, None, 1
    if has_written or old is None or old.gradient is None:
        return change, sizes.of(new.gradient), max(1, new.num_tokens)
    count = max(1, new.num_tokens - old.num_tokens)
    return change, sizes.of(new.gradient, old.gradient), count


def _raw_gate(layer: TTTLayer, state: TTTState) -> Tensor:
    """The gate [B, L, heads] of the tokens held back, before silu; such that its strength is 0 where there are none."""
    attention = layer.self_attn
    heads = attention.config.num_fast_heads
    if state.held is None:
        return state.fast.weights.gate.new_zeros(1, 1, heads)
    raw = state.held.raw.rates[..., -heads:]
    return raw if attention.ttt_scale_proj is not None else torch.full_like(raw, _SILU_OF_ONE)


_SILU_OF_ONE = 1.2784645427610738
"""silu of it is one: the strength of a layer without a gate."""


def _strengths(raw: list[Tensor]) -> Tensor:
    """The mean of |silu| of each, float32 [n]."""
    if all(x.shape == raw[0].shape for x in raw):
        return F.silu(torch.stack(raw).float()).abs().flatten(1).mean(1)
    return torch.stack([F.silu(x.float()).abs().mean() for x in raw])
