"""One ingest of a clip, many questions: each a branch off the same state.

A batch has B clips with Q branches of Lq tokens. Branches start at the same position, see the clip
and themselves, and write nothing (`check_room` keeps them inside the open chunk), so their logits
equal those of separate forks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from spatial_ttt.model.branching import UnevenBranches
from spatial_ttt.model.layout import positions, text
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.state import DecoderState, Tokens
from spatial_ttt.model.vision import VisionTokens
from spatial_ttt.train.clip_text import Prefix
from spatial_ttt.train.clip_types import ClipSpec
from spatial_ttt.train.devices import constant
from spatial_ttt.train.pixels import patchify


class Ingested(NamedTuple):
    """What a clip left behind."""

    state: DecoderState
    hidden: Tensor  # [B, L, D] of the prefix, after the final norm
    vision: VisionTokens | None


def ingest(
    model: SpatialTTTForConditionalGeneration, prefix: Prefix, frames: Tensor, spec: ClipSpec
) -> Ingested:
    """Push B clips, uint8 [B, T, H, W, 3], with their prefix through the model."""
    dtype = model.get_input_embeddings().weight.dtype
    patches, grid = patchify(frames, spec, dtype)
    vision = model.encode(patches, grid)
    ids = constant(prefix.ids, frames.device).expand(frames.shape[0], -1)
    tokens, state = model.decode_piece(ids, prefix.layout, vision, model.decoder.start())
    return Ingested(state, tokens.hidden, vision)


def ingest_blind(
    model: SpatialTTTForConditionalGeneration, prefix: Prefix, batch: int, device: torch.device
) -> Ingested:
    """The state after a prefix without a video, for `batch` rows."""
    ids = constant(prefix.ids, device).expand(batch, -1)
    tokens, state = model.decode_piece(ids, prefix.layout, None, model.decoder.start())
    return Ingested(state, tokens.hidden, None)


def read(model: SpatialTTTForConditionalGeneration, state: DecoderState, ids: Tensor) -> Tensor:
    """Hidden states [B, Q, Lq, D] of branches ids [B, Q, Lq] off one state."""
    batch, branches, length = ids.shape
    hidden = model.get_input_embeddings()(ids.flatten(1))
    where, _ = positions((text(length),), state.position, ids.device)  # [3, Lq]
    where = where.repeat(1, branches)[:, None].expand(-1, batch, -1)
    rope = model.decoder.rotary_emb(where, hidden.dtype)
    tokens = Tokens(hidden, rope, None, (text(branches * length),))
    done, _ = model.decoder(tokens, state, branches=branches, keep_state=False)
    return done.hidden.unflatten(1, (branches, length))


class Packed(NamedTuple):
    """The branches of B clips, those of a clip side by side without gaps, padded to L tokens."""

    ids: Tensor  # [B, L]
    number: Tensor  # [B, L] which branch of its clip; -1: padding
    step: Tensor  # [B, L] which token of its branch
    longest: int  # tokens of the longest branch


def read_packed(
    model: SpatialTTTForConditionalGeneration, state: DecoderState, packed: Packed
) -> Tensor:
    """Hidden states [B, L, D] of packed branches off one state; equal to those `read` returns."""
    hidden = model.get_input_embeddings()(packed.ids)
    where = (state.position + packed.step).expand(3, -1, -1)
    rope = model.decoder.rotary_emb(where, hidden.dtype)
    tokens = Tokens(hidden, rope, None, (text(packed.ids.shape[1]),))
    branches = UnevenBranches(packed.number, packed.step, packed.longest)
    done, _ = model.decoder(tokens, state, branches=branches, keep_state=False)
    return done.hidden


class Targets(NamedTuple):
    """Which tokens are trained, as indices into the flattened branches."""

    at: Tensor  # [N] positions whose next token is predicted
    token: Tensor  # [N] that token
    weight: Tensor  # [N] float
    kind: Tensor  # [N] index into KINDS


def branch_loss(
    model: SpatialTTTForConditionalGeneration, hidden: Tensor, targets: Targets
) -> tuple[Tensor, Tensor]:
    """Weighted sum of the answers' cross entropies and each token's own; logits only where labels are."""
    chosen = hidden.flatten(0, -2).index_select(0, targets.at)
    logits = model.lm_head(chosen).float()
    each = F.cross_entropy(logits, targets.token, reduction="none")
    return (each * targets.weight).sum(), each.detach()


@torch.no_grad()
def generate(
    model: SpatialTTTForConditionalGeneration,
    state: DecoderState,
    ids: Tensor,
    start: Tensor,
    max_new_tokens: int,
) -> Tensor:
    """Greedy answers [B, Q, max_new_tokens] of branches whose prompts end before `start` [B, Q].

    Branches are short, so each new token costs one more pass over them; nothing is written anywhere.
    An answer must fit its branch up to the last token but one: past the end the last token repeats.
    """
    ids = ids.clone()
    answer = []
    length = ids.shape[-1]
    for step in range(max_new_tokens):
        hidden = read(model, state, ids)
        at = (start + step - 1).clamp(max=length - 1)[..., None]
        last = hidden.gather(2, at[..., None].expand(-1, -1, 1, hidden.shape[-1]))[:, :, 0]
        token = model.lm_head(last).argmax(-1)
        answer.append(token)
        following = (at + 1).clamp(max=length - 1)
        fits = at + 1 < length
        ids.scatter_(2, following, torch.where(fits, token[..., None], ids.gather(2, following)))
    return torch.stack(answer, dim=-1)
