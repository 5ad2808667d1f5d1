"""A loaded model of ours with everything its measures need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from spatial_ttt.bench.clock import GIB
from spatial_ttt.bench.ingest import Ingest, open_ingest
from spatial_ttt.bench.memory import Held, StateBytes, memory_by_part
from spatial_ttt.bench.plan import FRAMES_PER_SLOT, BenchPlan
from spatial_ttt.bench.record import Line
from spatial_ttt.bench.subject import Subject, load, weight_bytes
from spatial_ttt.model.bounded_cache import AnchorPolicy, check_policy, policy_within
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.vision import batch_slots

Tick = Callable[[int], None]
"""Told how many frames were watched since the last call, for a progress bar."""


@dataclass(frozen=True)
class Rig:
    """What a measure works with."""

    plan: BenchPlan
    subject: Subject
    model: SpatialTTTForConditionalGeneration
    mode: str
    anchors: AnchorPolicy | None
    weight_bytes: int
    pool: Tensor
    """Frames of one batch of the tower [2 S, H, W, 3], shown over and over."""
    tick: Tick = lambda frames: None

    def in_mode(self, mode: str) -> Rig:
        """The same model with exact or bounded anchors."""
        anchors = anchor_policy(self.plan, self.subject) if mode == "bounded" else None
        return replace(self, mode=mode, anchors=anchors)

    def open(self) -> Ingest:
        """A fresh stream."""
        return open_ingest(self.plan.engine, self.model, self.subject, self.anchors)

    def push(self, ingest: Ingest, slots: int, piece: int | None = None) -> None:
        """Watch so many slots in pieces (None: as the plan says), the pool's frames over and over."""
        piece = piece or self.plan.slots_per_piece

        def pieces() -> Iterator[Tensor]:
            for at in range(0, slots, piece):
                count = min(piece, slots - at)
                yield self.frames(count)
                self.tick(FRAMES_PER_SLOT * count)

        ingest.watch(pieces())

    def frames(self, slots: int) -> Tensor:
        """So many slots [2 S, H, W, 3]; nobody keeps more than the pool."""
        count, there = FRAMES_PER_SLOT * slots, self.pool.shape[0]
        if count <= there:
            return self.pool[:count]
        return self.pool.repeat(-(-count // there), 1, 1, 1)[:count]

    @property
    def warm_slots(self) -> int:
        """Single slots until three chunks were written: an engine has prepared both kinds of step by then,
        those that write and those that do not."""
        chunk = self.subject.config.ttt_config.chunk_size
        return 3 * chunk // self.subject.slot_tokens + 2

    def warm_singly(self, ingest: Ingest) -> None:
        """Watch `warm_slots` slots one at a time."""
        self.push(ingest, self.warm_slots, piece=1)

    def line(self, frames: int) -> Line:
        """What every line of a stream says; the measure fills in the rest."""
        return {
            "frames": frames,
            "tokens": frames // 2 * self.subject.slot_tokens,
            "slots_per_piece": self.plan.slots_per_piece,
            "engine": self.plan.engine,
            "anchor_tokens": self.anchors.max_tokens if self.anchors else None,
            "anchor_bits": self.anchors.bits if self.anchors else None,
            "seconds_to_first_token": None,
        }

    def memory(self, peak: int | None, states: StateBytes) -> Line:
        """A peak in bytes, by part; read it before asking an engine for its state, which may copy."""
        frames = self.pool.numel() * self.pool.element_size()
        held = Held(self.weight_bytes, frames, states)
        return {
            "peak_gib": None if peak is None else peak / GIB,
            "memory_gib": memory_by_part(held, peak),
        }


def anchor_policy(plan: BenchPlan, subject: Subject) -> AnchorPolicy:
    """What bounded anchors keep; raises BudgetError or ConfigError where that cannot be."""
    found = policy_within(plan.anchor_bytes, subject.config, subject.dtype, bits=plan.anchor_bits)
    return check_policy(found)


def open_rig(plan: BenchPlan, subject: Subject, mode: str) -> Rig:
    """Load the model; one rig after another may share it (see `Rig.in_mode`)."""
    model = load(subject)
    pool = subject.frames(batch_slots(plan.slots_per_piece))
    return Rig(plan, subject, model, "exact", None, weight_bytes(model), pool).in_mode(mode)
