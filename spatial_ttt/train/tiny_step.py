"""One training step of the small model: ingest clips, read the branches, descend."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spatial_ttt.errors import DataError
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.train.branches import (
    Ingested,
    Packed,
    Targets,
    branch_loss,
    ingest,
    ingest_blind,
    read_packed,
)
from spatial_ttt.train.clip_text import Prefix
from spatial_ttt.train.clip_types import DENSE_KINDS, KINDS, ClipSpec
from spatial_ttt.train.dense_heads import DenseHeads, Named
from spatial_ttt.train.devices import HostCopy, Mark, to_device
from spatial_ttt.train.listening import before_anchors, listening, middle
from spatial_ttt.train.optim import SlowWeights
from spatial_ttt.train.ring import Batch
from spatial_ttt.train.truncated import ingest_in_parts

DENSE_TOKEN_WEIGHT = 0.3
ROW_STEP = 32  # rows of packed branches are a multiple of so many tokens
LONGEST_STEP = (
    300.0  # seconds a launched step (the first: compiled too) may take before it counts as hung
)


class Work(NamedTuple):
    """What one step is given."""

    batches: list[Batch]
    spec: ClipSpec
    prefix: Prefix
    is_blind: bool
    is_chained: bool = False
    """Clips are streams of several homes: of the dense facts only counts are known."""


class Timing(NamedTuple):
    """Milliseconds of one step."""

    forward_backward: float
    optimizer: float


@dataclass(frozen=True, slots=True)
class Launched:
    """A step on its way through the device."""

    number: int
    stage: str
    is_blind: bool
    names: tuple[str, ...]
    values: HostCopy  # one per name, then one per kind
    marks: tuple[Mark, Mark, Mark]  # begun, gradients there, done
    began: float
    fill: float = 1.0
    """Share of the questions' tokens that are no padding."""

    def wait(self, meanwhile: Callable[[], None]) -> None:
        """Do something useful until the device is done with this step."""
        while not self.marks[2].has_passed:
            meanwhile()
            if time.monotonic() - self.began > LONGEST_STEP:
                raise DataError(
                    f"step {self.number} has been on the device for {LONGEST_STEP:.0f} s"
                )

    @property
    def scores(self) -> dict[str, float]:
        """Losses by name, and the gradient norm; raises if they are not finite."""
        found = dict(zip(self.names, self.values.values.tolist(), strict=False))
        if not all(math.isfinite(found[name]) for name in ("loss", "grad_norm")):
            raise DataError(
                f"step {self.number} went astray: {found}; lower --learning-rate, or try --kernels reference"
            )
        return found

    @property
    def by_kind(self) -> dict[str, float]:
        """Mean cross entropy of each kind's tokens, of kinds that were asked."""
        values = self.values.values[len(self.names) :].tolist()
        return {kind: value for kind, value in zip(KINDS, values, strict=True) if value == value}

    @property
    def timing(self) -> Timing:
        """How long the parts took."""
        first, second, third = self.marks
        return Timing(second.ms_since(first), third.ms_since(second))


class Questions(NamedTuple):
    """The questions of a batch as the model reads them."""

    packed: Packed
    targets: Targets
    named: Named


@dataclass(slots=True)
class Stepper:
    """The model with all that trains it."""

    model: SpatialTTTForConditionalGeneration
    heads: DenseHeads
    slow: SlowWeights
    device: torch.device
    dense: float
    """Weight of the dense read-outs."""
    shield: Callable[[], AbstractContextManager[None]]
    """Entered while weights change: nothing may interrupt that."""

    def step(self, work: Work, scale: float, number: int, stage: str) -> Launched:
        """Descend once at `scale` times the peak rates; returns without waiting for the device."""
        began = Mark(self.device)
        asked = [pack(batch) for batch in work.batches]
        total = sum(weight for _, weight in asked)
        parts: dict[str, Tensor] = {}
        for batch, (questions, _) in zip(work.batches, asked, strict=True):
            loss, found = self._loss(work, batch, questions, total)
            loss.backward()
            for name, value in found.items():
                parts[name] = parts[name] + value.detach() if name in parts else value.detach()
        differentiated = Mark(self.device)
        with self.shield():
            parts["grad_norm"] = self.slow.step(scale)
        sums, counts = parts.pop("by_kind")
        kinds = sums / counts
        values = HostCopy(torch.cat((torch.stack([v.float() for v in parts.values()]), kinds)))
        marks = (began, differentiated, Mark(self.device))
        used = sum(int(batch.stop.sum()) for batch in work.batches)
        room = sum(questions.packed.ids.numel() for questions, _ in asked)
        about = (number, stage, work.is_blind, tuple(parts))
        return Launched(*about, values, marks, began.time, used / room)

    def _loss(
        self, work: Work, batch: Batch, asked: Questions, total: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The part of the step's loss from one of its batches, and what it consists of."""
        model, parts = self.model, len(work.batches)
        with listening(model, before_anchors(model)) as seen:
            ingested = self._ingest(work, batch)
        with listening(model, middle(model)) as read:
            hidden = read_packed(model, ingested.state, asked.packed)
        loss, each = branch_loss(model, hidden, asked.targets)
        loss = loss / total
        found = {"loss": loss, "by_kind": by_kind(each, asked.targets.kind)}
        if work.is_blind or not self.dense:
            return loss, found
        if work.is_chained:
            counts = self.heads.counts(ingested, batch, work.prefix)
            names = self.heads.names(read, batch, asked.named)
            dense, extra = {"counts": counts, "names": names}, counts + names
        else:
            losses = self.heads(ingested, seen, batch, (work.prefix, work.spec))
            names = self.heads.names(read, batch, asked.named)
            dense, extra = losses._asdict() | {"names": names}, losses.total() + names
        found |= {f"dense_{name}": value / parts for name, value in dense.items()}
        return loss + self.dense * extra / parts, found

    def _ingest(self, work: Work, batch: Batch) -> Ingested:
        if work.is_blind:
            return ingest_blind(self.model, work.prefix, batch.ids.shape[0], self.device)
        how = ingest_in_parts if work.is_chained else ingest
        return how(self.model, work.prefix, batch.frames, work.spec)


def by_kind(each: Tensor, kind: Tensor) -> Tensor:
    """Sum of the cross entropies of each kind's tokens, and their number [2, KINDS]."""
    sums = torch.zeros(2, len(KINDS), device=each.device)
    return sums.index_add_(1, kind, torch.stack((each, torch.ones_like(each))))


def pack(batch: Batch) -> tuple[Questions, float]:
    """Branches side by side, their answer tokens as flat indices, and the sum of these tokens' weights."""
    clips, _, length = batch.ids.shape
    row, number, step = np.nonzero(np.arange(length) < batch.stop[..., None])
    ends = np.cumsum(np.bincount(row, minlength=clips))
    column = np.arange(len(row)) - np.concatenate(([0], ends[:-1]))[row]
    width = -(-int(column.max() + 1) // ROW_STEP) * ROW_STEP
    where = np.zeros((3, clips, width), np.int64)  # in the batch's branches; number; step
    where[1] = -1
    where[:, row, column] = number * length + step, number, step
    source, numbers, steps = to_device(where, batch.ids.device).unbind()
    ids = batch.ids.flatten(1).gather(1, source).masked_fill(numbers < 0, 0)
    packed = Packed(ids, numbers, steps, int(batch.stop.max()))
    answers = step >= batch.start[row, number]
    kind = batch.kind[row, number][answers]
    dense = np.isin(kind, [KINDS.index(name) for name in DENSE_KINDS])
    weight = np.where(dense, DENSE_TOKEN_WEIGHT, 1.0).astype(np.float32)
    flat = to_device((row * width + column)[answers], ids.device)
    chosen = (to_device(x, ids.device) for x in (weight, kind))
    targets = Targets(flat - 1, ids.flatten().index_select(0, flat), *chosen)
    category = batch.named[row, number, step]
    name = np.flatnonzero(category)
    marks = ((row * width + column)[name], row[name], category[name])
    named = Named(*(to_device(x, ids.device) for x in marks))
    return Questions(packed, targets, named), float(weight.sum())
