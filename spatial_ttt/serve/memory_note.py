"""What the memory did with a slot, read off the session's state: cheap enough for every slot.

Per TTT layer:
    update    change of the fast weights in use, relative to their size; 0 unless a chunk was written
    surprise  size of the gradient that the slot's tokens added to the open chunk, per token
    gate      mean strength with which the layer's latest tokens read the fast weights
"""

from __future__ import annotations

import torch
from torch import Tensor

from spatial_ttt.model.decoder import HybridDecoder, TTTLayer
from spatial_ttt.model.fast_weights import BriefState, FastState, FastWeights
from spatial_ttt.model.state import DecoderState, TTTState
from spatial_ttt.serve.timeline import MemoryNote

Fast = FastState | BriefState


@torch.no_grad()
def memory_note(
    decoder: HybridDecoder, before: DecoderState, after: DecoderState, slot: int, time: float
) -> MemoryNote:
    """Compare two states of a decoder that a slot lies between."""
    figures: list[Tensor] = []
    for layer, old, new in zip(decoder.layers, before.layers, after.layers, strict=True):
        if isinstance(layer, TTTLayer) and isinstance(new, TTTState):
            earlier = old.fast if isinstance(old, TTTState) else None
            gate = _mean_gate(layer, new)
            figures.append(
                torch.stack((_update(earlier, new.fast), _surprise(earlier, new.fast), gate))
            )
    if not figures:
        return MemoryNote(slot, time, (), (), ())
    update, surprise, gate_strength = torch.stack(figures).T.tolist()  # one copy from the device
    return MemoryNote(slot, time, tuple(update), tuple(surprise), tuple(gate_strength))


def _update(old: Fast | None, new: Fast) -> Tensor:
    if old is None or old.weights is new.weights:
        return torch.zeros((), device=new.weights.gate.device)
    change = FastWeights(*(b - a for a, b in zip(old.weights, new.weights, strict=True)))
    return _norm(change) / _norm(old.weights)


def _surprise(old: Fast | None, new: Fast) -> Tensor:
    if new.gradient is None:
        return torch.zeros((), device=new.weights.gate.device)
    added, tokens = new.gradient, new.num_tokens
    same_chunk = old is not None and old.weights is new.weights
    if same_chunk and old is not None and old.gradient is not None:
        added = FastWeights(*(b - a for a, b in zip(old.gradient, new.gradient, strict=True)))
        tokens = new.num_tokens - old.num_tokens
    return _norm(added) / max(1, tokens)


def _mean_gate(layer: TTTLayer, state: TTTState) -> Tensor:
    if state.held is None:
        return torch.zeros((), device=state.fast.weights.gate.device)
    _, _, gate = layer.self_attn.rates(state.held.raw.rates)
    return gate.float().abs().mean()


def _norm(weights: FastWeights) -> Tensor:
    squares = torch.stack([w.float().square().sum() for w in weights])
    return squares.sum().sqrt()
