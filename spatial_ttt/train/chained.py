"""Long streams out of the clips at hand: homes one after another, some of them again.

What was counted in a home counts once, however often the home is walked through. In some streams one
unusual thing stands in four of the homes, for questions about an order (see `recall`).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from spatial_ttt.scenes.chain import NUM_SPOTS
from spatial_ttt.train import recall
from spatial_ttt.train.clip_types import Chain, ClipSpec, Needle, Record
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
    slots = made.homes * (spec.num_slots // made.stride)
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
    places = np.array([one.places for one in drawn], np.int64)  # [R, H]
    asked = []
    for one in drawn:
        facts = [_record(ring, place).facts for place in dict.fromkeys(one.places)]
        few = [*asker.counts(facts, made.stride, rng), *asker.order(one.item, one.by, rng)]
        asked.append([some for some in few if len(some.ids) <= size.room] or few[:1])
    table = tabulate(asked)
    none = ring.place[:0]
    frames = ring.frames[to_device(places, ring.device)]  # [R, H, T, ...]
    return Batch(
        frames=frames[:, :, made.shown(ring.spec.num_slots)].flatten(1, 2),
        ids=to_device(table.ids, ring.device),
        start=table.start,
        stop=table.stop,
        kind=table.kind,
        named=table.named,
        truth=[[one.answer for one in few] for few in asked],
        category=none,
        depth=none,
        pose=none,
        counts=_so_far(ring, places, made),
        place=_unknown(ring.place, size.rows),
        first=_unknown(ring.first, size.rows),
    )


def _unknown(array: Tensor, rows: int) -> Tensor:
    return array.new_full((rows, *array.shape[1:]), torch.nan)


def _record(ring: ClipRing, place: int) -> Record:
    record = ring.records[place]
    assert record is not None
    return record


def _so_far(ring: ClipRing, places: NDArray[np.int64], made: Chain) -> Tensor:
    """Instances of each category seen by the end of each slot [R, H * S, K]."""
    is_new = np.array([[p not in row[:n] for n, p in enumerate(row)] for row in places.tolist()])
    fresh = to_device(is_new, ring.device)[..., None]
    counted = [
        [_record(ring, place).facts.counted[made.stride - 1] for place in row]
        for row in places.tolist()
    ]
    whole = to_device(np.array(counted), ring.device).int() * fresh  # [R, H, K]
    before = whole.cumsum(1) - whole
    last = slice(made.stride - 1, None, made.stride)  # of the slots that become one
    within = ring.counts[to_device(places, ring.device)][:, :, last].int() * fresh[..., None]
    # Of frames that are left out nothing was counted: no more than in all that are shown.
    within = torch.minimum(within, whole[:, :, None])
    return (before[:, :, None] + within).flatten(1, 2)


# --- Itineraries ---------------------------------------------------------------------------------


class _Itinerary(NamedTuple):
    places: list[int]
    """In the ring, of the homes in turn."""
    item: int
    """The category of the thing to remember."""
    by: list[int]
    """Categories of what it stands by, in order; none: there is no such thing."""


def _itineraries(ring: ClipRing, rng: Generator, rows: int, made: Chain) -> list[_Itinerary]:
    ready = np.array(ring.ready)
    by_item = recall.hidden(ring.records, ring.ready)
    frames = made.shown(ring.spec.num_slots)
    found = []
    for _ in range(rows):
        needles: list[tuple[int, Needle]] = []
        if rng.random() < RECALLED:
            count = min(NUM_SPOTS, made.homes)
            needles = recall.draw_hidden(ring.records, by_item, frames, count, rng)
        item = needles[0][1].item if needles else 0
        due = recall.spread_out(made.homes, len(needles), rng) if needles else []
        drawn = iter([place for place, _ in needles])
        again = float(rng.choice(AGAIN))
        places: list[int] = []
        for home in range(made.homes):
            if home in due:
                places.append(next(drawn))
            elif home and rng.random() < again:
                places.append(places[int(rng.integers(home))])
            else:
                places.append(_without(ring, ready, item, rng))
        found.append(_Itinerary(places, item, [one.place for _, one in needles]))
    return found


def _without(ring: ClipRing, ready: NDArray[np.int64], item: int, rng: Generator) -> int:
    """A clip in which nothing of category `item` is seen (0: any), if one is soon found."""
    place = 0
    for n in rng.integers(len(ready), size=TRIES).tolist():
        place = int(ready[n])
        facts = _record(ring, place).facts
        if not item or not (facts.counted[0, item] or facts.glimpsed[0, item]):
            break
    return place
