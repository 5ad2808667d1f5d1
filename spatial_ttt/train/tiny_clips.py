"""The rings of a run: which homes are made for which stage, and when there are enough."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch

from spatial_ttt.model.layout import num_tokens
from spatial_ttt.scenes.homes import home_seed
from spatial_ttt.train.chained import LONGEST_QUESTION, chained_spec
from spatial_ttt.train.clip_text import Prefix, check_room, clip_prefix, room_for_branch
from spatial_ttt.train.clip_types import ClipSpec
from spatial_ttt.train.curriculum import Stage
from spatial_ttt.train.pool import ClipSource, Order
from spatial_ttt.train.ring import ClipRing

log = logging.getLogger(__name__)

FIRST_CLIPS = 128  # clips in a ring before it is trained on (or a step of them, if more)
FIRST_FRESH = 1.0  # new clips per clip trained on until a quarter of the ring is full
TASK_SIZE = 8  # homes a worker makes at a time
DRAWN_AT_ONCE = 64  # clips, while waiting for clips
MOST_UNDER_WAY = 1024  # clips begun and not ready
TURN = 2.0  # seconds that homes of one stage are made before those of another
MOST_STAGES = 8  # stages share a run's seeds
TRAIN_SPAN = 1 << 30  # seeds a run may use; runs with another --seed use others
MOST_RANKS = 64


class Supply:
    """Rings of training clips by stage, and of held-out ones; all filled by one source."""

    def __init__(
        self,
        chosen: argparse.Namespace,
        source: ClipSource,
        tokenizer: Any,
        device: torch.device,
        chunk_size: int,
    ) -> None:
        self.chosen, self.source, self.device = chosen, source, device
        self.tokenizer, self.chunk_size = tokenizer, chunk_size
        self.prefixes: dict[ClipSpec, Prefix] = {}
        self.rings: dict[str, ClipRing] = {}
        self.held_out: dict[str, Order] = {}
        self.streamed = ""
        self.streams: dict[str, Order] = {}
        self.begun: dict[str, int] = {}  # first seed of each stream
        self.turn_ends = 0.0
        self.allowance = 0.0  # clips that may be drawn
        self.enough = max(1, min(max(FIRST_CLIPS, chosen.clips), chosen.capacity // 4))
        self.next_seed = home_seed("train", chosen.seed * TRAIN_SPAN)
        self.last_seed = self.next_seed + TRAIN_SPAN

    def keep_to(self, rank: int) -> None:
        """Use this rank's share of the run's seeds only."""
        share = TRAIN_SPAN // MOST_RANKS
        self.next_seed += rank * share
        self.last_seed = self.next_seed + share

    def prefix(self, spec: ClipSpec) -> Prefix:
        """The text of a spec's clips."""
        if spec not in self.prefixes:
            self.prefixes[spec] = clip_prefix(self.tokenizer, spec)
        return self.prefixes[spec]

    def context(self, stage: Stage) -> int:
        """The most tokens a question of this stage can have before it, its own included."""
        chains = stage.chains if stage.chained else ()
        specs = [chained_spec(stage.spec, made) for made in chains]
        prefixes = [self.prefix(spec) for spec in (stage.spec, *specs)]
        for prefix in prefixes[1:]:
            check_room(prefix, self.chunk_size, LONGEST_QUESTION)
        return max(num_tokens(p.layout) + room_for_branch(p, self.chunk_size) for p in prefixes)

    # --- Orders -----------------------------------------------------------------------------------

    def order(self, stage: Stage, capacity: int, seeds: range, most_under_way: int) -> Order:
        """Homes of a stage for a new ring; refuses a stage whose questions would not fit the open chunk."""
        check_room(self.prefix(stage.spec), self.chunk_size, stage.branch_length)
        share = -(-min(capacity, len(seeds)) // self.chosen.workers)
        return Order(
            ring=ClipRing(stage.spec, capacity, self.device),
            difficulty=stage.difficulty,
            branch_length=stage.branch_length,
            next_seed=seeds.start,
            last_seed=seeds.stop,
            most_under_way=most_under_way,
            task_size=max(1, min(TASK_SIZE, share, most_under_way)),
        )

    def stream(self, stage: Stage, rehearsed: Iterable[Stage] = ()) -> None:
        """Let the workers make training homes of this stage and, by turns, of the rehearsed ones from now on."""
        now = time.monotonic()
        if stage.name == self.streamed and now < self.turn_ends:
            return
        self.streamed, self.turn_ends = stage.name, now + TURN
        shares = {stage.name: 1 - sum(share for _, share in stage.rehearsed)}
        shares |= dict(stage.rehearsed)
        due = {one.name: self._order_of(one) for one in (stage, *rehearsed)}
        # The one that is furthest behind its share of the clips made from here on.
        name = min(due, key=lambda name: (due[name].next_seed - self.begun[name]) / shares[name])
        self.source.stream = due[name]

    def _order_of(self, stage: Stage) -> Order:
        """The stage's endless order; made when it is first asked for."""
        if stage.name not in self.streams:
            share = (self.last_seed - self.next_seed) // MOST_STAGES
            first = self.next_seed + len(self.streams) * share
            capacity = self.chosen.capacity
            most = min(max(capacity // 2, 1), MOST_UNDER_WAY)
            order = self.order(stage, capacity, range(first, first + share), most)
            self.rings[stage.name], self.streams[stage.name] = order.ring, order
            self.begun[stage.name] = first
        return self.streams[stage.name]

    def hold_out(self, stage: Stage) -> None:
        """Make the homes of a stage that are asked about and never trained on."""
        count = self.chosen.eval_clips
        first = home_seed("val", 0)
        order = self.order(stage, count, range(first, first + count), count)
        self.source.orders.append(order)
        self.held_out[stage.name] = order

    @property
    def all_held_out(self) -> bool:
        """All held-out homes are made."""
        return all(order.is_done for order in self.held_out.values())

    def has_enough(self, name: str) -> bool:
        """The stage's ring can be trained on."""
        ring = self.rings.get(name)
        return ring is not None and len(ring.ready) >= min(self.enough, ring.capacity // 4)

    # --- Filling ----------------------------------------------------------------------------------

    def wait_until(self, is_enough: Callable[[], bool], seconds: float, what: str) -> None:
        """Pump until there is enough, or for `seconds`."""
        began, made = time.monotonic(), self.source.tally.made
        while not is_enough() and time.monotonic() - began < seconds:
            if not self.source.pump(limit=DRAWN_AT_ONCE):
                time.sleep(0.001)
        took, made = time.monotonic() - began, self.source.tally.made - made
        log.info("%s: %d clips in %.1f s (%.0f/s)", what, made, took, made / max(took, 1e-9))

    def earn(self, clips: int) -> None:
        """A step of so many clips lets a share of new ones be drawn."""
        stream = self.source.stream
        is_young = stream is not None and len(stream.ring.ready) < stream.ring.capacity // 4
        fresh = max(self.chosen.fresh, FIRST_FRESH if is_young else 0.0) * clips
        self.allowance = min(self.allowance + fresh, 4 * fresh + 1)

    def feed(self) -> None:
        """Pump once, drawing no more clips than steps have earned."""
        before = self.source.tally.drawn
        self.source.pump(limit=int(self.allowance))
        self.allowance -= self.source.tally.drawn - before
