"""Long streams out of the clips at hand: homes one after another, some of them again.

What was counted in a home counts once, however often the home is walked through. In some streams one
unusual thing stands in four of the homes, for questions about an order (see `recall`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from spatial_ttt.scenes.chain import NUM_SPOTS
from spatial_ttt.train import recall
from spatial_ttt.train.clip_types import Chain, ClipSpec, Needle, Record, categories
from spatial_ttt.train.devices import to_device
from spatial_ttt.train.ring import Batch, ClipRing
from spatial_ttt.train.stream_asker import StreamAsker, tabulate

# Shares of homes that were walked through before, of which each stream has one: else time would tell the counts.
AGAIN = (0.0, 0.1, 0.2, 0.4)
RECALLED = 0.75  # share of streams that have something to remember, once there are clips for it
TRIES = 20  # clips drawn until one does not show the thing that only others may show
LONGEST_QUESTION = 32  # tokens of a counting question with its answer


def chained_spec(spec: ClipSpec, made: Chain) -> ClipSpec:
    """The shape of a stream of clips."""
    slots = made.homes * made.slots(spec.num_slots)
    return dataclasses.replace(spec, num_slots=slots, fps=spec.fps / made.stride)


def stream_rows(clips: int, made: Chain) -> int:
    """Streams that have about as many frames together as a step of so many clips."""
    return max(1, round(clips * made.stride / made.homes))


class Size(NamedTuple):
    """How large a batch of streams is."""

    rows: int
    """Streams."""
    room: int
    """Tokens a question may have with its answer; longer ones are left out."""


def chain(ring: ClipRing, asker: StreamAsker, rng: Generator, size: Size, made: Chain) -> Batch:
    """Streams of clips; of the dense arrays only `counts` is known."""
    drawn = _itineraries(ring, rng, size.rows, made)
    tallies = [_tally(ring, one.stays, made) for one in drawn]
    asked = []
    for one, tally in zip(drawn, tallies, strict=True):
        counts = asker.counts(tally.so_far[-1], tally.glimpsed, rng)
        few = [*counts, *asker.order(one.item, one.by, rng)]
        asked.append([some for some in few if len(some.ids) <= size.room] or few[:1])
    table = tabulate(asked)
    none = ring.place[:0]
    shown = np.array([_frames(one.stays, made) for one in drawn], np.int64)  # [R, 2, T]
    place, frame = to_device(shown, ring.device).unbind(1)
    return Batch(
        frames=ring.frames[place, frame],
        ids=to_device(table.ids, ring.device),
        start=table.start,
        stop=table.stop,
        kind=table.kind,
        named=table.named,
        truth=[[one.answer for one in few] for few in asked],
        category=none,
        depth=none,
        pose=none,
        counts=to_device(np.stack([tally.so_far for tally in tallies]), ring.device),
        place=_unknown(ring.place, size.rows),
        first=_unknown(ring.first, size.rows),
    )


def _unknown(array: Tensor, rows: int) -> Tensor:
    return array.new_full((rows, *array.shape[1:]), torch.nan)


def _record(ring: ClipRing, place: int) -> Record:
    record = ring.records[place]
    assert record is not None
    return record


def _frames(stays: Sequence[_Stay], made: Chain) -> tuple[list[int], list[int]]:
    """Which frame of which clip each frame of a stream is: places in the ring, and numbers within the clips."""
    places = [stay.place for stay in stays for _ in range(2 * stay.slots)]
    return places, [n * made.stride for stay in stays for n in range(2 * stay.slots)]


class _Tally(NamedTuple):
    so_far: NDArray[np.int32]
    """[S, K] instances of each category seen by the end of each slot."""
    glimpsed: NDArray[np.int32]
    """[K] instances only glimpsed where the whole clips are shown."""


def _tally(ring: ClipRing, stays: Sequence[_Stay], made: Chain) -> _Tally:
    """What a stream shows; of a home seen again only what was not seen the first time is new."""
    rate, last = made.stride - 1, made.slots(ring.spec.num_slots)
    facts = {stay.place: _record(ring, stay.place).facts for stay in stays}
    seen = dict.fromkeys(facts, 0)  # slots of each clip
    rows = [np.zeros((1, len(categories())), np.int32)]
    for stay in stays:
        whole = facts[stay.place].counted[rate]
        # Of frames that are left out nothing was counted: no more than in all that are shown.
        within = np.minimum(facts[stay.place].counts[rate :: made.stride][:last], whole)
        after = np.concatenate(([0 * whole], within[:-1], [whole])).astype(
            np.int32
        )  # 0 to last slots
        before = after[seen[stay.place]]
        rows.append(rows[-1][-1] + np.maximum(after[1 : stay.slots + 1], before) - before)
        seen[stay.place] = max(seen[stay.place], stay.slots)
    glimpsed = np.stack([one.glimpsed[rate] for one in facts.values()]).sum(0, dtype=np.int32)
    return _Tally(np.concatenate(rows[1:]), glimpsed)


# --- Itineraries ---------------------------------------------------------------------------------


class _Stay(NamedTuple):
    place: int
    """In the ring, of the clip."""
    slots: int
    """Shown of it, from its beginning."""


class _Itinerary(NamedTuple):
    stays: list[_Stay]
    item: int
    """The category of the thing to remember."""
    by: list[int]
    """Categories of what it stands by, in order; none: there is no such thing."""


def _itineraries(ring: ClipRing, rng: Generator, rows: int, made: Chain) -> list[_Itinerary]:
    by_item = recall.hidden(ring.records, ring.ready)
    frames = made.shown(ring.spec.num_slots)
    found = []
    for _ in range(rows):
        needles: list[tuple[int, Needle]] = []
        if rng.random() < RECALLED:
            count = min(NUM_SPOTS, made.homes)
            needles = recall.draw_hidden(ring.records, by_item, frames, count, rng)
        item = needles[0][1].item if needles else 0
        stays = _stays(ring, rng, made, [place for place, _ in needles], item)
        found.append(_Itinerary(stays, item, [one.place for _, one in needles]))
    return found


def _stays(
    ring: ClipRing, rng: Generator, made: Chain, needles: Sequence[int], item: int
) -> list[_Stay]:
    """Clips that fill a stream; those of `needles`, in this order, are shown whole, and no others show the thing."""
    longest = made.slots(ring.spec.num_slots)
    shortest = math.ceil(made.shortest * longest)
    slots = made.homes * longest
    due = recall.spread_out(slots, longest, len(needles), rng)
    waiting = list(zip(due, needles, strict=True))
    again = float(rng.choice(AGAIN))
    ready = np.array(ring.ready)
    stays: list[_Stay] = []
    at = 0
    while at < slots:
        until = (waiting[0][0] if waiting else slots) - at
        if waiting and until < shortest:
            stay = _Stay(waiting.pop(0)[1], longest)
        else:
            is_seen = bool(stays) and rng.random() < again
            earlier = stays[int(rng.integers(len(stays)))].place if is_seen else None
            place = _without(ring, ready, item, rng) if earlier is None else earlier
            stay = _Stay(place, min(int(rng.integers(shortest, longest + 1)), until))
        stays.append(stay)
        at += stay.slots
    return stays


def _without(ring: ClipRing, ready: NDArray[np.int64], item: int, rng: Generator) -> int:
    """A clip in which nothing of category `item` is seen (0: any), if one is soon found."""
    place = 0
    for n in rng.integers(len(ready), size=TRIES).tolist():
        place = int(ready[n])
        facts = _record(ring, place).facts
        if not item or not (facts.counted[0, item] or facts.glimpsed[0, item]):
            break
    return place
