"""The loss of a pack: every sample apart, all of them layer by layer.

    samples -> rows of about one length -> vision tokens -> layer 0 of all rows -> layer 1 of all rows -> ...
            -> hidden states where targets are -> logits -> summed cross entropy

Going through the layers in this order, a sharded layer's weights are gathered once for a whole
pack, and processes that pack their samples differently still gather the same layers in turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from types import MethodType
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from spatial_ttt.model import whole_convolution
from spatial_ttt.model.decoder import DecoderLayer
from spatial_ttt.model.layout import (
    END,
    AnyLayout,
    Layout,
    RunKind,
    join,
    num_tokens,
    positions,
    text,
    uneven_rows,
)
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration, vision_index
from spatial_ttt.model.state import Tokens
from spatial_ttt.model.ttt import TTTAttention
from spatial_ttt.model.vision import VisionTokens
from spatial_ttt.processor import Processor
from spatial_ttt.train.conversation import Encoded
from spatial_ttt.train.dataset import LoadedSample
from spatial_ttt.train.devices import sent
from spatial_ttt.train.optim import added_parameters
from spatial_ttt.train.rounded import RoundedCopies
from spatial_ttt.train.touching import touch

VISION_SLOTS = 64
"""Slots that go through the vision tower at once."""
PADDED_PART = 1 / 8
"""Samples of different layouts share a batch if padding makes up no more than this part of any row."""
FEW_LENGTHS, LONG_SAMPLE = 64, 2048
"""Batches of long samples are padded to a multiple of it: cuDNN plans every length, and need not copy to pad."""
LOGIT_ROWS = 2048
"""Targets whose logits exist at once (2,048 x 152 k in float32 are 1.2 GB)."""


class PackSums(NamedTuple):
    """What a pack adds to a step; sums, so packs and processes add up."""

    loss: Tensor  # [] cross entropy of all targets
    counts: (
        Tensor  # [4] float64: targets, targets hit, samples, samples all of whose targets are hit
    )


class Rows:
    """Samples as a batch, padded to the longest, on their way to a device. FSDP sees this class as opaque.

    Indices count tokens through all rows, one behind the other.
    """

    def __init__(self, samples: Sequence[LoadedSample], device: torch.device) -> None:
        self.samples = samples
        layouts = [s.encoded.layout for s in samples]
        longest = max(layouts, key=num_tokens)
        has_one = len({_without_last_words(layout) for layout in layouts}) == 1
        length = num_tokens(longest)
        spare = -length % FEW_LENGTHS if length >= LONG_SAMPLE else 0
        length += spare
        self.runs = [(*layout, text(length - num_tokens(layout))) for layout in layouts]
        """Of each row, padding included."""
        self.layout: AnyLayout
        if has_one:
            self.layout = join(longest, (END, text(spare))) if spare else longest
        else:
            self.layout = uneven_rows(layouts, length)
        ids = torch.zeros(len(samples), length, dtype=torch.long)
        where = torch.zeros(3, len(samples), length, dtype=torch.long)
        vision_at, at, token, owner = [], [], [], []
        for row, sample in enumerate(samples):
            encoded = sample.encoded
            ids[row, : len(encoded.ids)] = torch.tensor(encoded.ids)
            where[:, row, : len(encoded.ids)] = positions(encoded.layout, 0)[0]
            vision_at.append(vision_index(encoded.layout, torch.device("cpu")) + row * length)
            targets = [n for n, is_one in enumerate(encoded.is_target) if is_one]
            at += [row * length + n - 1 for n in targets]
            token += [encoded.ids[n] for n in targets]
            owner += [row] * len(targets)
        self.ids = sent(ids, device)
        self.positions = sent(where, device)  # [3, B, L]
        self.at, self.token, self.owner = (
            sent(torch.tensor(numbers, dtype=torch.long), device) for numbers in (at, token, owner)
        )
        self.vision_at = sent(torch.cat(vision_at), device)
        self.frames = [sent(frames, device) for sample in samples for frames in sample.frames]
        self.rope = torch.empty(0)
        self.vision: Tensor | None = None  # [N, D] of all slots, in order
        self.taps: list[Tensor] = []
        """DeepStack features where their tokens stand, [B, L, D] for each layer that is due."""

    def tensors(self) -> list[Tensor]:
        """What was sent."""
        small = [self.ids, self.positions, self.at, self.token, self.owner, self.vision_at]
        return small + self.frames


class Given:
    """Rows as an argument: FSDP would walk through every token id in search of tensors, for longer than a step.

    They are given away.
    """

    def __init__(self, rows: list[Rows]) -> None:
        self.rows = rows

    def tensors(self) -> list[Tensor]:
        """What was sent to the device."""
        return [tensor for row in self.rows for tensor in row.tensors()]


class LayerWork:
    """What a layer needs beside hidden states; opaque to FSDP."""

    def __init__(self, rows: list[Rows], recompute: bool, touches: bool) -> None:
        self.rows = rows
        self.recompute = recompute
        self.touches = touches


class PackedModel(nn.Module):
    """A model with the forward pass of training: a pack in, sums out."""

    def __init__(
        self, model: SpatialTTTForConditionalGeneration, processor: Processor, checkpointed: int
    ) -> None:
        super().__init__()
        self.model = model
        self.processor = processor
        self.checkpointed = checkpointed
        """Decoder layers, from the first, whose activations are made again in the backward pass."""
        self.touch_all = False
        """Give every trained parameter a gradient: processes must agree on which have one."""
        self.stays_gathered = False
        """Shares are gathered once a step (see `sharding.begin_pack`)."""
        self.copies: RoundedCopies | None = None
        """What to compute with, of a process that holds all masters itself (see `sharding.reshard`)."""
        for layer in model.decoder.layers:
            layer.run_rows = MethodType(run_rows, layer)  # type: ignore[assignment]
        for module in model.decoder.modules():
            if isinstance(module, TTTAttention):  # samples are whole
                module.__dict__["convolve"] = MethodType(whole_convolution.convolve, module)

    def given(self, samples: Sequence[LoadedSample]) -> Given:
        """A pack on its way to the device; an empty one still visits every layer."""
        device = self.model.decoder.embed_tokens.weight.device
        return Given(make_rows(samples or [_nothing(self.processor)], device))

    def __call__(self, samples: Sequence[LoadedSample] | Given) -> PackSums:
        """Sums over the targets of a pack, which may be `given` already."""
        if self.copies is not None:
            self.copies.use()
        given = samples if isinstance(samples, Given) else self.given(samples)
        return cast(PackSums, super().__call__(given))

    def forward(self, given: Given) -> PackSums:
        """See `__call__`."""
        decoder = self.model.decoder
        rows, given.rows = given.rows, []
        assert rows, "a pack is given once"
        self._see(rows)
        hidden = [self._embed(row) for row in rows]
        for number, layer in enumerate(decoder.layers):
            recompute = number < self.checkpointed and self.training and torch.is_grad_enabled()
            work = LayerWork(rows, recompute, self.touch_all)
            hidden = layer.run_rows(hidden, work)  # type: ignore[operator]
            hidden = [_add_taps(x, row) for x, row in zip(hidden, rows, strict=True)]
        return self._sums(hidden, rows)

    def _see(self, rows: list[Rows]) -> None:
        """Vision tokens of all rows; frames of one size go through the tower together."""
        visual = self.model.model.visual
        trains = any(p.requires_grad for p in visual.parameters()) and torch.is_grad_enabled()
        with torch.set_grad_enabled(trains):
            for row in rows:
                frames, row.frames = row.frames, []
                if not frames:
                    continue
                parts = self._encode(frames, trains and self.training and self.checkpointed > 0)
                row.vision = torch.cat([part.tokens.flatten(0, 1) for part in parts])
                of_layers = zip(*(part.deepstack.unbind(0) for part in parts), strict=True)
                row.taps = [_in_places(slots, row) for slots in of_layers]

    def _encode(self, frames: list[Tensor], recompute: bool) -> list[VisionTokens]:
        """Vision tokens of all slots in order, in parts of one size."""
        dtype = cast(Any, self.model.model.visual).patch_embed.proj.weight.dtype
        parts = []
        for piece in _pieces(frames):
            patches, grid = self.processor.patches(piece, dtype)
            if recompute:
                part = checkpoint(
                    self.model.encode, patches, grid, use_reentrant=False, preserve_rng_state=False
                )
            else:
                part = self.model.encode(patches, grid)
            parts.append(cast(VisionTokens, part))
        return parts

    def _embed(self, row: Rows) -> Tensor:
        decoder = self.model.decoder
        hidden = decoder.embed_tokens(row.ids)
        row.rope = decoder.rotary_emb(row.positions, hidden.dtype)
        tokens, row.vision = row.vision, None
        if self.touch_all or tokens is None:  # where the tower alone is trained, the loss needs it
            hidden = touch(hidden, _trained(self.model.model.visual))
        if tokens is None:
            return hidden
        put = hidden.flatten(0, 1).index_copy(0, row.vision_at, tokens.to(hidden.dtype))
        return put.view_as(hidden)

    def _sums(self, hidden: list[Tensor], rows: list[Rows]) -> PackSums:
        chosen = [x.flatten(0, 1).index_select(0, r.at) for x, r in zip(hidden, rows, strict=True)]
        first = [0]
        for row in rows:
            first.append(first[-1] + len(row.samples))
        owner = torch.cat([row.owner + start for row, start in zip(rows, first, strict=False)])
        target = torch.cat([row.token for row in rows])
        loss, hit = self._cross_entropy(torch.cat(chosen), target)
        loss = loss + sum(x[0, 0, 0].float() * 0.0 for x in hidden)  # a pack without targets
        missed = torch.zeros(first[-1], device=loss.device).index_add(0, owner, (~hit).float())
        has = torch.zeros_like(missed).index_add(0, owner, torch.ones_like(hit, dtype=missed.dtype))
        exact = ((missed == 0) & (has > 0)).sum()
        counts = torch.stack(
            (hit.new_full((), len(target), dtype=torch.long), hit.sum(), (has > 0).sum(), exact)
        )
        return PackSums(loss, counts.to(torch.float64))

    def _cross_entropy(self, hidden: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Summed cross entropy and which targets are the most likely token."""
        pieces = list(zip(hidden.split(LOGIT_ROWS), target.split(LOGIT_ROWS), strict=True))
        several = len(pieces) > 1 and torch.is_grad_enabled()
        losses, hits = [], []
        for part, wanted in pieces:
            if several:
                got = checkpoint(
                    self._one_cross_entropy,
                    part,
                    wanted,
                    use_reentrant=False,
                    preserve_rng_state=False,
                )
            else:
                got = self._one_cross_entropy(part, wanted)
            loss, hit = cast(tuple[Tensor, Tensor], got)
            losses.append(loss)
            hits.append(hit)
        return torch.stack(losses).sum(), torch.cat(hits)

    def _one_cross_entropy(self, hidden: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model.lm_head(self.model.decoder.norm(hidden))
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = F.cross_entropy(exact, target, reduction="sum")
        return loss, logits.detach().argmax(-1) == target


def run_rows(self: DecoderLayer, hidden: list[Tensor], work: LayerWork) -> list[Tensor]:
    """One decoder layer over all rows of a pack: hidden [B, L, D] of each."""
    if work.touches:  # here the parameters are gathered
        hidden = [touch(hidden[0], _optional_parameters(self)), *hidden[1:]]
    out = []
    for x, row in zip(hidden, work.rows, strict=True):
        if work.recompute:
            x = cast(
                Tensor,
                checkpoint(_run_layer, self, x, row, use_reentrant=False, preserve_rng_state=False),
            )
        else:
            x = _run_layer(self, x, row)
        out.append(x)
    return out


def _run_layer(layer: DecoderLayer, hidden: Tensor, row: Rows) -> Tensor:
    """Whole samples from no state to no state."""
    tokens = Tokens(hidden, row.rope, None, row.layout)
    # `forward` itself: the hooks of FSDP are on `run_rows`.
    ready, _ = cast(Any, layer).forward(tokens, None, 1, False)
    assert ready.length == hidden.shape[1], "a whole sample leaves nothing held back"
    return cast(Tensor, ready.hidden)


def _add_taps(hidden: Tensor, row: Rows) -> Tensor:
    """DeepStack: features of the vision tower are added to its tokens after each of the first layers, and let go."""
    return hidden + row.taps.pop(0).to(hidden.dtype) if row.taps else hidden


def _in_places(parts: Sequence[Tensor], row: Rows) -> Tensor:
    """Features of all slots in order, [S, N, D] of each part, where their tokens stand [B, L, D]; zero elsewhere.

    Joined run by run: adding them is a plain sum then, and so is its gradient.
    """
    slots = (features for part in parts for features in part.unbind(0))
    words = max(run.length for runs in row.runs for run in runs if run.kind == RunKind.TEXT)
    zero = parts[0].new_zeros(words, parts[0].shape[-1])
    pieces = [
        next(slots) if run.kind == RunKind.SLOT else zero[: run.length]
        for runs in row.runs
        for run in runs
        if run.length
    ]
    return torch.cat(pieces).unflatten(0, (len(row.runs), -1))


def make_rows(samples: Sequence[LoadedSample], device: torch.device) -> list[Rows]:
    """Batches of one layout or of about one length; tokens after a sample's own end never reach it."""
    groups: dict[Layout, list[LoadedSample]] = {}
    for sample in samples:
        groups.setdefault(_without_last_words(sample.encoded.layout), []).append(sample)
    batches: list[list[LoadedSample]] = []
    for members in sorted(groups.values(), key=_most_tokens, reverse=True):
        least = min(len(sample.encoded.ids) for sample in members)
        fits = (b for b in batches if least >= (1 - PADDED_PART) * _most_tokens(b))
        batch = next(fits, None)
        if batch is None:
            batches.append(members)
        else:
            batch += members
    return [Rows(batch, device) for batch in batches]


def _most_tokens(samples: list[LoadedSample]) -> int:
    return max(len(sample.encoded.ids) for sample in samples)


def _without_last_words(layout: Layout) -> Layout:
    return layout[:-1] if layout[-1].kind == RunKind.TEXT else layout


def _pieces(frames: list[Tensor]) -> Iterator[Tensor]:
    """Neighbouring frames of one size, as many as go through the tower at once."""
    for _, run in groupby(frames, lambda media: media.shape[1:]):
        media = list(run)
        joined = torch.cat(media) if len(media) > 1 else media[0]
        yield from joined.split(2 * VISION_SLOTS)


def _nothing(processor: Processor) -> LoadedSample:
    """Two tokens without a target: what a process does whose pack is empty."""
    ids = [processor.stop_id] * 2
    return LoadedSample("nothing", Encoded(ids, [False, False], (text(2),)), ())


def _trained(module: nn.Module) -> tuple[nn.Parameter, ...]:
    return tuple(p for p in module.parameters() if p.requires_grad)


def _optional_parameters(layer: nn.Module) -> tuple[nn.Parameter, ...]:
    """Parameters of a layer that short samples leave unused: all of its TTT branch."""
    attention = cast(Any, layer).self_attn
    if not isinstance(attention, TTTAttention):
        return ()
    return tuple(p for p in added_parameters(attention) if p.requires_grad)
