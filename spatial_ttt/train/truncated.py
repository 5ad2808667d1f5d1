"""Long streams in parts: what fast weights carry from part to part gets no gradient.

A gradient that goes back through very many writes grows beyond all else (its norm was 15 over 55 chunks
and 600 over 84). So it ends where a part begins; windows, held slots and anchors keep theirs, which are
short ways. Values are those of the whole stream: pieces of a stream equal it.

Of streams of an hour only the last parts are learned from. What comes before is watched as it is when the model
is used, without gradients: a state worth hours, at the price of its forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from spatial_ttt.model.fast_weights import FastState, FastWeights
from spatial_ttt.model.layout import cut, num_tokens
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.state import DecoderState, LayerState, TTTState
from spatial_ttt.model.vision import VisionTokens
from spatial_ttt.train.branches import Ingested, ingest
from spatial_ttt.train.clip_text import Prefix
from spatial_ttt.train.clip_types import ClipSpec
from spatial_ttt.train.devices import constant
from spatial_ttt.train.pixels import patchify

LONGEST_PART = 5600
"""Tokens, as many as eight homes of a walk."""
MOST_PARTS = 3
"""Parts at the end of a stream that get gradients."""


def ingest_in_parts(
    model: SpatialTTTForConditionalGeneration,
    prefix: Prefix,
    frames: Tensor,
    spec: ClipSpec,
    longest: int = LONGEST_PART,
    most: int = MOST_PARTS,
) -> Ingested:
    """What `ingest` gives, frames uint8 [B, T, H, W, 3], in equal parts of at most about `longest` tokens.

    Only the last `most` parts get gradients.
    """
    parts = math.ceil(num_tokens(prefix.layout) / longest)
    if parts == 1:
        return ingest(model, prefix, frames, spec)
    ids = constant(prefix.ids, frames.device).expand(frames.shape[0], -1)
    dtype = model.get_input_embeddings().weight.dtype
    slots = np.linspace(0, spec.num_slots, parts + 1).round().astype(int).tolist()
    ends = [0, *(prefix.slot_ends[n - 1] + 1 for n in slots[1:-1]), len(prefix.ids)]
    state, hidden, seen = model.decoder.start(), [], []
    for n in range(parts):
        start, stop = ends[n], ends[n + 1]
        layout = cut(prefix.layout, start, stop)
        shown = frames[:, 2 * slots[n] : 2 * slots[n + 1]]
        with torch.set_grad_enabled(torch.is_grad_enabled() and n >= parts - most):
            vision = model.encode(*patchify(shown, spec, dtype))
            piece = ids[:, start:stop], layout, vision
            tokens, state = model.decode_piece(*piece, let_go(state))
        hidden.append(tokens.hidden)
        seen.append(vision)
    return Ingested(state, torch.cat(hidden, dim=1), _together(seen, frames.shape[0]))


def _together(parts: Sequence[VisionTokens], batch: int) -> VisionTokens:
    """The slots of successive parts of `batch` rows, each row's one after another."""
    tokens = [part.tokens.unflatten(0, (batch, -1)) for part in parts]
    taps = [part.deepstack.unflatten(1, (batch, -1)) for part in parts]
    return VisionTokens(torch.cat(tokens, 1).flatten(0, 1), torch.cat(taps, 2).flatten(1, 2))


def let_go(state: DecoderState) -> DecoderState:
    """The same state; no gradient goes back through the fast weights it holds."""
    return state._replace(layers=tuple(_cut_off(layer) for layer in state.layers))


def _cut_off(layer: LayerState) -> LayerState:
    if not isinstance(layer, TTTState) or not isinstance(layer.fast, FastState):
        return layer
    fast = layer.fast
    beta = None if fast.beta_sum is None else fast.beta_sum.detach()
    cut_off = FastState(
        _detached(fast.weights),
        fast.master and _detached(fast.master),
        fast.momentum and _detached(fast.momentum),
        fast.gradient and _detached(fast.gradient),
        beta,
        fast.num_tokens,
    )
    return layer._replace(fast=cut_off)


def _detached(weights: FastWeights) -> FastWeights:
    return FastWeights(*(part.detach() for part in weights))
