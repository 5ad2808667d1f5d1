"""Clips kept on the device for training, the oldest overwritten first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from spatial_ttt.errors import DataError
from spatial_ttt.train.clip_types import KINDS, ClipSpec, Record, categories
from spatial_ttt.train.devices import to_device

LABEL_STRIDE = 8  # pixels between dense labels
RARE = KINDS.index("obj_appearance_order")  # most clips have no such question
RARE_SHARE, RARE_FACTOR = (
    0.5,
    4.0,
)  # share of a batch's clips that have one: at most, against what is natural


DENSE_ARRAYS = ("category", "depth", "pose", "counts", "place", "first")


class Batch(NamedTuple):
    """B clips with up to Q branches each; a branch that is not there has `start` and `stop` 0."""

    frames: Tensor  # uint8 [B, T, H, W, 3]
    ids: Tensor  # long [B, Q, Lq]
    start: NDArray[np.int64]  # [B, Q] first answer token
    stop: NDArray[np.int64]  # [B, Q]
    kind: NDArray[np.int64]  # [B, Q] index into KINDS
    named: NDArray[np.int64]  # [B, Q, Lq] category whose name ends at this token; 0: none does
    truth: list[list[str]]
    category: Tensor  # uint8 [B, T, h, w] category of every 8th pixel
    depth: Tensor  # float16 [B, T, h, w] m
    pose: Tensor  # [B, S, 4]
    counts: Tensor  # uint8 [B, S, K]
    place: Tensor  # [B, K, 2] m; nan: no single one was seen
    first: Tensor  # [B, K] seconds; nan: never seen


class ClipRing:
    """Clips of one spec.

    A place is free, pending (drawn, its questions on their way) or ready; `reserve` takes the oldest
    that is not pending.
    """

    def __init__(self, spec: ClipSpec, capacity: int, device: torch.device) -> None:
        self.spec, self.capacity, self.device = spec, capacity, device
        shape = (capacity, spec.num_frames)
        small = (spec.height // LABEL_STRIDE, spec.width // LABEL_STRIDE)
        kinds = len(categories())
        size = (spec.height, spec.width, 3)
        self.frames = torch.zeros(*shape, *size, dtype=torch.uint8, device=device)
        self.category = torch.zeros(*shape, *small, dtype=torch.uint8, device=device)
        self.depth = torch.zeros(*shape, *small, dtype=torch.float16, device=device)
        self.pose = torch.zeros(capacity, spec.num_slots, 4, device=device)
        self.counts = torch.zeros(capacity, spec.num_slots, kinds, dtype=torch.uint8, device=device)
        self.place = torch.zeros(capacity, kinds, 2, device=device)
        self.first = torch.zeros(capacity, kinds, device=device)
        self.records: list[Record | None] = [None] * capacity
        self.ready: list[int] = []
        self.where: dict[int, int] = {}  # place -> index in `ready`
        self.rare: dict[int, None] = {}  # places of clips with a rare question, in order
        self.pending: set[int] = set()
        self.next = 0

    def reserve(self, count: int) -> list[int]:
        """Places for new clips; what stood there is gone."""
        if count > self.capacity - len(self.pending):
            raise DataError(
                f"{count} clips were drawn for a ring of {self.capacity} with {len(self.pending)} pending; "
                "order fewer clips at once"
            )
        places: list[int] = []
        while len(places) < count:
            place, self.next = self.next, (self.next + 1) % self.capacity
            if place in self.pending:
                continue
            if self.records[place] is not None:
                self._drop(place)
            self.pending.add(place)
            places.append(place)
        return places

    def _drop(self, place: int) -> None:
        at, last = self.where.pop(place), self.ready.pop()
        if last != place:
            self.ready[at] = last
            self.where[last] = at
        self.rare.pop(place, None)
        self.records[place] = None

    def release(self, places: Sequence[int]) -> None:
        """Give reserved places back: nothing could be asked about them."""
        self.pending.difference_update(places)

    def fill(self, places: Sequence[int], records: Sequence[Record]) -> None:
        """Make clips ready for use; clips nothing can be asked about are left out."""
        index = to_device(np.array(places), self.device)
        for name in ("pose", "counts", "place", "first"):
            stacked = np.stack([getattr(record.facts, name) for record in records])
            getattr(self, name)[index] = to_device(stacked, self.device)
        self.release(places)
        for place, record in zip(places, records, strict=True):
            if not record.exchanges.truth:
                continue
            self.records[place] = record
            self.where[place] = len(self.ready)
            self.ready.append(place)
            if RARE in record.exchanges.kind:
                self.rare[place] = None

    def batch(self, rng: Generator, clips: int, room: int, weights: NDArray[np.float64]) -> Batch:
        """Random clips, exchanges of up to `room` tokens together of each, kinds drawn by `weights` [KINDS]."""
        if not self.ready:
            raise DataError("the ring holds no clip yet; pump until it does")
        places = [self.ready[n] for n in rng.integers(len(self.ready), size=clips)]
        if self.rare and weights[RARE] > 0:
            share = min(RARE_SHARE, RARE_FACTOR * len(self.rare) / len(self.ready))
            rare = list(self.rare)
            chosen = rng.integers(len(rare), size=int(rng.binomial(clips, share)))
            places[: len(chosen)] = [rare[n] for n in chosen]
        return self.collect(places, [self._choose(p, rng, room, weights) for p in places])

    def _choose(
        self, place: int, rng: Generator, room: int, weights: NDArray[np.float64]
    ) -> NDArray[np.intp]:
        """At least one exchange; none twice."""
        record = self.records[place]
        assert record is not None
        kind = record.exchanges.kind
        share = weights[kind] / np.bincount(kind, minlength=len(KINDS))[kind]
        keys = rng.random(len(kind)) ** (1.0 / np.maximum(share, 1e-6))
        # What has no weight is asked only where there is nothing else.
        wanted = int((share > 0).sum()) or len(kind)
        keys[share == 0] -= 1.0
        order = np.argsort(-keys)[:wanted]
        return _fitting(order, record.exchanges.stop[order], room)

    def collect(self, places: Sequence[int], chosen: Sequence[NDArray[np.intp]]) -> Batch:
        """The batch of these clips with these exchanges."""
        found = [record for place in places if (record := self.records[place]) is not None]
        pairs = list(zip(found, chosen, strict=True))
        most = max(len(rows) for rows in chosen)
        ids = np.stack([record.exchanges.ids[np.resize(rows, most)] for record, rows in pairs])
        start, stop, kind = (
            np.stack(
                [getattr(record.exchanges, name)[np.resize(rows, most)] for record, rows in pairs]
            ).astype(np.int64)
            for name in ("start", "stop", "kind")
        )
        is_there = np.arange(most) < np.array([len(rows) for rows in chosen])[:, None]
        start, stop = start * is_there, stop * is_there
        truth = [[record.exchanges.truth[row] for row in rows] for record, rows in pairs]
        longest = min(ids.shape[-1], -(-int(stop.max()) // 8) * 8)
        index = to_device(np.array(places), self.device)
        arrays = (getattr(self, name)[index] for name in DENSE_ARRAYS)
        on_device = to_device(ids[..., :longest].astype(np.int64), self.device)
        named = [record.exchanges.named[np.resize(rows, most)] for record, rows in pairs]
        names = np.stack(named)[..., :longest].astype(np.int64)
        return Batch(self.frames[index], on_device, start, stop, kind, names, truth, *arrays)


def _fitting(order: NDArray[np.intp], length: NDArray[np.int16], room: int) -> NDArray[np.intp]:
    """Of exchanges in order, those that still fit a room when their turn comes; the first in any case."""
    taken = [order[0]]
    room -= int(length[0])
    for one, tokens in zip(order[1:].tolist(), length[1:].tolist(), strict=True):
        if tokens <= room:
            taken.append(one)
            room -= tokens
    return np.array(taken, np.intp)


def kind_weights(weights: Mapping[str, float]) -> NDArray[np.float64]:
    """Weights of kinds by name as an array; a kind not named has none."""
    return np.array([weights.get(kind, 0.0) for kind in KINDS])
