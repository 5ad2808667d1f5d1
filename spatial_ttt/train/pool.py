"""Clips for training, made while training: workers furnish and ask, the device draws and keeps.

worker: homes, cameras -> device: pictures into the ring, pixel counts -> worker: questions -> ring.
Nothing here waits: `pump` does what is ready and returns; see `channel` for why no pipe can block.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from spatial_ttt.errors import DataError
from spatial_ttt.train.channel import Channel
from spatial_ttt.train.clip_types import (
    AskedClips,
    Difficulty,
    Filmed,
    FilmedHomes,
    Record,
    SceneTask,
    Sighting,
)
from spatial_ttt.train.draw import Caster, Drawn, draw
from spatial_ttt.train.ring import ClipRing
from spatial_ttt.train.scene_worker import run_worker

log = logging.getLogger(__name__)

HEAD_START = 3  # tasks a worker has at hand
MOST_DRAWN = 128  # clips of one call of the ray caster
PATIENCE = 30.0  # seconds without a word from workers who owe one
STARTUP = 120.0  # the same before the first word: all workers import at once
FAILURES_SHOWN = 3
FAILURES_ALLOWED = (20, 0.05)  # homes that may fail: so many, or this share


@dataclass(kw_only=True, slots=True, eq=False)
class Order:
    """Homes to make for a ring: the seeds from `next_seed` up to `last_seed`."""

    ring: ClipRing
    difficulty: Difficulty
    branch_length: int
    next_seed: int
    last_seed: int
    most_under_way: int
    """Clips begun and not ready; their places in the ring cannot be trained on."""
    task_size: int = 8
    under_way: int = 0

    def next_seeds(self) -> tuple[int, ...]:
        """Seeds of the next task; none if all are used up or too many are under way."""
        size = min(self.task_size, self.last_seed - self.next_seed)
        if size <= 0 or self.under_way + size > self.most_under_way:
            return ()
        seeds = tuple(range(self.next_seed, self.next_seed + size))
        self.next_seed += size
        self.under_way += size
        return seeds

    @property
    def is_done(self) -> bool:
        """All seeds are used up and nothing is under way."""
        return self.next_seed >= self.last_seed and not self.under_way


class _Waiting(NamedTuple):
    """Clips drawn in one call, with the worker and ticket of each."""

    drawn: Drawn
    owners: list[tuple[_Worker, int]]


@dataclass(slots=True, eq=False)
class _Worker:
    """What the parent knows of one worker. Every message to it earns exactly one reply."""

    channel: Channel
    filming: dict[int, Order] = field(default_factory=dict)  # by task number
    asking: dict[int, tuple[Order, int]] = field(
        default_factory=dict
    )  # ticket -> place in the ring
    owed: int = 0  # replies that have not come


@dataclass(slots=True)
class Tally:
    """What was done since the start."""

    drawn: int = 0
    made: int = 0
    failed: int = 0
    dropped: int = 0  # exchanges too long for a branch
    host_seconds: float = 0.0  # spent in `pump`


class ClipSource:
    """Workers that keep rings full: first those of `orders`, in turn, then the `stream`'s."""

    def __init__(
        self,
        workers: int,
        arguments: tuple[Any, ...],
        caster: Caster,
        entry: Callable[..., None] = run_worker,
        patience: tuple[float, float] = (PATIENCE, STARTUP),
    ) -> None:
        """`arguments` follow `entry`'s connection: the tokenizer's file and the two prompts."""
        self.caster, self.patience = caster, patience
        self.workers = [_Worker(Channel(n, entry, arguments)) for n in range(workers)]
        self.orders: list[Order] = []
        self.stream: Order | None = None
        self.tally = Tally()
        self.num_tasks = 0
        self.filmed: list[tuple[Order, _Worker, Filmed]] = []
        self.asked: list[tuple[Order, int, Record]] = []
        self.waiting: list[_Waiting] = []
        self.heard_any = False
        self.last_move = time.monotonic()

    # --- One round --------------------------------------------------------------------------------

    def pump(self, limit: int | None = None) -> int:
        """Hand out tasks, draw what is furnished, keep what is asked; returns the clips made ready.

        At most `limit` clips are drawn: drawing takes the host's and the device's time.
        """
        began, before = time.monotonic(), self.tally.made
        for worker in self.workers:
            while worker.channel.has_message:
                self._hear(worker, worker.channel.receive())
        self._hand_out()
        self._keep()
        self._draw(len(self.filmed) if limit is None else min(limit, len(self.filmed)))
        self._send_sightings()
        self._watch()
        self.tally.host_seconds += time.monotonic() - began
        return self.tally.made - before

    def _hand_out(self) -> None:
        """Tasks to the workers that have fewest, until all have their head start."""
        if len(self.filmed) > 2 * MOST_DRAWN:
            return
        self.orders = [order for order in self.orders if order.next_seed < order.last_seed]
        for at_hand in range(HEAD_START):
            for worker in self.workers:
                if len(worker.filming) <= at_hand and not self._hand_to(worker):
                    return

    def _hand_to(self, worker: _Worker) -> bool:
        for order in [*self.orders, *([self.stream] if self.stream else [])]:
            if seeds := order.next_seeds():
                self.num_tasks += 1
                worker.filming[self.num_tasks] = order
                spec = order.ring.spec
                task = SceneTask(self.num_tasks, seeds, spec, order.difficulty, order.branch_length)
                self._send(worker, task)
                return True
        return False

    def _send(self, worker: _Worker, message: Any) -> None:
        worker.channel.send(message)
        worker.owed += 1
        self.last_move = time.monotonic()

    def _hear(self, worker: _Worker, reply: FilmedHomes | AskedClips) -> None:
        worker.owed -= 1
        self.heard_any, self.last_move = True, time.monotonic()
        if isinstance(reply, FilmedHomes):
            order = worker.filming.pop(reply.task)
            self.filmed += [(order, worker, home) for home in reply.homes]
            for text in reply.failures:
                self._fail(order, text)
            return
        for record in reply.records:
            self.asked.append((*worker.asking.pop(record.ticket), record))
        for ticket, text in reply.failures:
            order, place = worker.asking.pop(ticket)
            order.ring.release([place])
            self._fail(order, text)

    def _keep(self) -> None:
        """Clips whose questions came are ready: one transfer per ring."""
        for ring in {id(order.ring): order.ring for order, _, _ in self.asked}.values():
            mine = [(place, record) for order, place, record in self.asked if order.ring is ring]
            ring.fill([place for place, _ in mine], [record for _, record in mine])
        for order, _, record in self.asked:
            order.under_way -= 1
            self.tally.made += 1
            self.tally.dropped += record.dropped
        self.asked = []

    def _draw(self, count: int) -> None:
        """Draw the `count` clips that have waited longest, those of one ring together."""
        some, self.filmed = self.filmed[:count], self.filmed[count:]
        for ring in {id(order.ring): order.ring for order, _, _ in some}.values():
            mine = [item for item in some if item[0].ring is ring]
            for at in range(0, len(mine), MOST_DRAWN):
                part = mine[at : at + MOST_DRAWN]
                drawn = draw(self.caster, [home for _, _, home in part], ring)
                for (order, worker, home), place in zip(part, drawn.places, strict=True):
                    worker.asking[home.ticket] = (order, place)
                owners = [(worker, home.ticket) for _, worker, home in part]
                self.waiting.append(_Waiting(drawn, owners))
        self.tally.drawn += len(some)

    def _send_sightings(self) -> None:
        later = []
        for waiting in self.waiting:
            if not waiting.drawn.has_arrived:
                later.append(waiting)
                continue
            by_worker: dict[int, tuple[_Worker, list[Sighting]]] = {}
            pixels = waiting.drawn.pixels.numpy()
            for (worker, ticket), counts in zip(waiting.owners, pixels, strict=True):
                sightings = by_worker.setdefault(id(worker), (worker, []))[1]
                sightings.append(Sighting(ticket, counts))
            for worker, sightings in by_worker.values():
                self._send(worker, sightings)
        self.waiting = later

    # --- When something is wrong ------------------------------------------------------------------

    def _fail(self, order: Order, text: str) -> None:
        """A home that could not be furnished or asked about is left out; many are an error."""
        order.under_way -= 1
        self.tally.failed += 1
        if self.tally.failed <= FAILURES_SHOWN:
            log.warning("a home is left out: %s", text)
        number, share = FAILURES_ALLOWED
        if self.tally.failed > max(number, share * self.tally.made):
            raise DataError(
                f"{self.tally.failed} homes failed, {self.tally.made} did not; the last: {text}"
            )

    def _watch(self) -> None:
        """Raise if workers who owe a reply have been silent for too long."""
        silent = time.monotonic() - self.last_move
        if (
            any(worker.owed for worker in self.workers)
            and silent > self.patience[not self.heard_any]
        ):
            raise DataError(
                f"no scene worker has sent anything for {silent:.0f} s; {self.describe()}"
            )

    def describe(self) -> str:
        """The state of the pipeline in words."""
        rows = [
            f"worker {w.channel.number}: {'alive' if w.channel.process.is_alive() else 'dead'}, "
            f"{len(w.filming)} tasks, {len(w.asking)} clips to ask about, {w.owed} replies owed"
            for w in self.workers
        ]
        orders = [*self.orders, *([self.stream] if self.stream else [])]
        rings = [
            f"{len(o.ring.ready)}/{o.ring.capacity} ready, {o.under_way} under way" for o in orders
        ]
        return (
            f"{self.tally}; {len(self.filmed)} homes to draw, "
            f"{sum(len(w.owners) for w in self.waiting)} clips on the device; "
            f"rings: {'; '.join(rings) or 'none ordered'}; {'; '.join(rows)}"
        )

    def end_stream(self) -> None:
        """Make no more of the stream's clips and forget those not drawn; orders go on."""
        ended, self.stream = self.stream, None
        self.filmed = [item for item in self.filmed if item[0] is not ended]

    def close(self) -> None:
        """End the workers."""
        for worker in self.workers:
            worker.channel.close()
