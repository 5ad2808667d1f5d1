"""Dense scene descriptions, the targets of stage 1, and the parser that reads their facts back.

Each kind of sentence has several wordings in `WORDINGS`. `describe` fills one of each; `parse`
turns the same wordings into patterns, so what is written can always be read, and nothing is said
that is not a fact: parsing a description gives exactly the facts it was made from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from numpy.random import Generator

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.facts import SceneFacts, all_facts, function_of, purpose
from spatial_ttt.scenes.questions.seen import Observation
from spatial_ttt.scenes.wording import (
    article,
    counted,
    counted_list,
    listed,
    read_counted,
    read_counted_list,
    read_listed,
    spoken,
    unspoken,
)

MAX_RELATIONS = 8
"""Most sentences about pairs of objects, distances included."""

WORDINGS: dict[str, tuple[str, ...]] = {
    "one room": (
        "The video shows {room}, a place for {purpose}",
        "This is a walk around {room}, used for {purpose}",
        "We are in {room}, made for {purpose}",
        "The camera explores {room} that serves for {purpose}",
    ),
    "rooms": (
        "The video walks through a home of {number}: {rooms}",
        "This is a tour of a home with {number}: {rooms}",
        "The camera visits {number} of a home: {rooms}",
        "We pass through {number} of one home, in this order: {rooms}",
    ),
    "use": (
        "The {room} is for {purpose}",
        "The {room} serves for {purpose}",
        "One uses the {room} for {purpose}",
    ),
    "area": (
        "Together the floor measures about {area} square meters",
        "The floor area is about {area} square meters",
        "There are about {area} square meters of floor",
    ),
    "counts": (
        "In all one can count {counts}",
        "Counting everything seen, one finds {counts}",
        "The complete list of what can be seen is {counts}",
        "Altogether the camera sees {counts}",
    ),
    "layout": (
        "In the {room} one finds {counts}",
        "The {room} holds {counts}",
        "Inside the {room} one sees {counts}",
        "The {room} is furnished with {counts}",
    ),
    "on": ("The {a} stands on the {b}", "On the {b} rests the {a}"),
    "above": ("The {a} hangs above the {b}", "Above the {b} is the {a}"),
    "next to": (
        "The {a} is right next to the {b}",
        "Right beside the {b} stands the {a}",
        "The {a} and the {b} are side by side",
    ),
    "far from": (
        "The {a} is far away from the {b}",
        "The {a} and the {b} are far apart",
        "Far off from the {b} lies the {a}",
    ),
    "distance": (
        "Between the {a} and the {b} lie {meters} meters",
        "The {a} is {meters} meters away from the {b}",
        "From the {a} it is {meters} meters to the {b}",
    ),
    "order": (
        "Along the walk one sees, in this order, {order}",
        "Things come into view in the following order: {order}",
        "First appearances follow this order: {order}",
    ),
}
"""Sentences by kind; slots in braces. Wordings of different kinds never fit the same sentence."""


@dataclass(frozen=True, slots=True)
class Description:
    """A text and the facts it states."""

    text: str
    facts: SceneFacts


# --- Writing -------------------------------------------------------------------------------------


def describe(seen: Observation, rng: Generator) -> Description:
    """A walkthrough of what was seen: context, counts, layout, pairs of objects, order of view."""
    every = all_facts(seen)
    if not every.counts:
        raise SceneError(
            f"scene {seen.scene.scene_id}: nothing was clearly seen, so nothing can be described"
        )
    relations, distances = _choose(every, rng)
    facts = SceneFacts(
        rooms=every.rooms,
        counts=_shuffled(every.counts, rng),
        layout=every.layout if len(every.rooms) > 1 else {},
        relations=relations,
        distances=distances,
        order=every.order,
        room_size=every.room_size,
    )
    paragraphs = [_context(facts, rng), [_say(rng, "counts", counts=counted_list(facts.counts))]]
    paragraphs.append(
        [
            _say(rng, "layout", room=room, counts=counted_list(_shuffled(counts, rng)))
            for room, counts in facts.layout.items()
        ]
    )
    paragraphs.append(_pairs(facts, rng))
    if facts.order:
        paragraphs.append([_say(rng, "order", order=_with_the(facts.order))])
    text = "\n".join(" ".join(f"{s}." for s in sentences) for sentences in paragraphs if sentences)
    return Description(text, facts)


def _say(rng: Generator, kind: str, **slots: str) -> str:
    wordings = WORDINGS[kind]
    return wordings[int(rng.integers(len(wordings)))].format(**slots)


def _shuffled(counts: dict[str, int], rng: Generator) -> dict[str, int]:
    names = list(counts)
    return {names[n]: counts[names[n]] for n in rng.permutation(len(names))}


def _choose(
    facts: SceneFacts, rng: Generator
) -> tuple[frozenset[tuple[str, str, str]], dict[tuple[str, str], str]]:
    """Some of the relations, the telling ones first, and some distances."""
    rank = {"on": 0, "above": 0, "next to": 1, "far from": 2}
    relations = sorted(facts.relations)
    relations = [relations[n] for n in rng.permutation(len(relations))]
    relations.sort(key=lambda relation: rank[relation[1]])
    pairs = sorted(facts.distances)
    pairs = [pairs[n] for n in rng.permutation(len(pairs))[: MAX_RELATIONS // 2]]
    chosen = relations[: MAX_RELATIONS - len(pairs)]
    return frozenset(chosen), {pair: facts.distances[pair] for pair in pairs}


def _context(facts: SceneFacts, rng: Generator) -> list[str]:
    if len(facts.rooms) == 1:
        room = facts.rooms[0]
        named = f"{article(room)} {room}"
        sentences = [_say(rng, "one room", room=named, purpose=purpose(room))]
    else:
        number = counted(len(facts.rooms), "room")
        rooms = _with_the(facts.rooms)
        sentences = [_say(rng, "rooms", number=number, rooms=rooms)]
        told = list(dict.fromkeys(function_of(room) for room in facts.rooms))
        firsts = [next(r for r in facts.rooms if function_of(r) == function) for function in told]
        sentences += [_say(rng, "use", room=room, purpose=purpose(room)) for room in firsts]
    if facts.room_size is not None:
        sentences.append(_say(rng, "area", area=facts.room_size))
    return sentences


def _pairs(facts: SceneFacts, rng: Generator) -> list[str]:
    said = [_say(rng, kind, a=spoken(a), b=spoken(b)) for a, kind, b in sorted(facts.relations)]
    said += [
        _say(rng, "distance", a=spoken(a), b=spoken(b), meters=meters)
        for (a, b), meters in sorted(facts.distances.items())
    ]
    return [said[n] for n in rng.permutation(len(said))]


# --- Reading -------------------------------------------------------------------------------------


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Every wording as a pattern whose groups are its slots."""
    found = []
    for kind, wordings in WORDINGS.items():
        for wording in wordings:
            parts = re.split(r"\{(\w+)\}", wording)
            pattern = "".join(
                f"(?P<{part}>.+?)" if n % 2 else re.escape(part) for n, part in enumerate(parts)
            )
            found.append((kind, re.compile(pattern)))
    return tuple(found)


def parse_description(text: str) -> SceneFacts:
    """The facts a description states; a SceneError names a sentence that fits no wording."""
    rooms: tuple[str, ...] = ()
    counts: dict[str, int] = {}
    layout: dict[str, dict[str, int]] = {}
    relations: set[tuple[str, str, str]] = set()
    distances: dict[tuple[str, str], str] = {}
    order: tuple[str, ...] = ()
    room_size: str | None = None
    for sentence in _sentences(text):
        kind, slots = _read(sentence)
        if kind == "one room":
            rooms = (read_counted(slots["room"])[1],)
        elif kind == "rooms":
            rooms = _without_the(read_listed(slots["rooms"]))
        elif kind == "area":
            room_size = slots["area"]
        elif kind == "counts":
            counts = read_counted_list(slots["counts"])
        elif kind == "layout":
            layout[slots["room"]] = read_counted_list(slots["counts"])
        elif kind == "distance":
            distances[unspoken(slots["a"]), unspoken(slots["b"])] = slots["meters"]
        elif kind == "order":
            order = _without_the(read_listed(slots["order"]))
        elif kind != "use":
            relations.add((unspoken(slots["a"]), kind, unspoken(slots["b"])))
    return SceneFacts(rooms, counts, layout, frozenset(relations), distances, order, room_size)


def _sentences(text: str) -> list[str]:
    """Sentences without their full stops; a stop inside a number ends nothing."""
    return [part.rstrip(".") for part in re.split(r"(?<=\.)\s+", text.strip()) if part]


def _read(sentence: str) -> tuple[str, dict[str, str]]:
    matches = [
        (kind, match.groupdict())
        for kind, pattern in _patterns()
        if (match := pattern.fullmatch(sentence))
    ]
    if not matches:
        raise SceneError(f"no wording of a description fits the sentence {sentence!r}")
    # "The sofa stands on the rug" also fits nothing else; where slots could swallow a wording of
    # another kind, the one with the shortest slots is the one that was written.
    return min(matches, key=lambda match: sum(len(slot) for slot in match[1].values()))


def _with_the(names: Sequence[str]) -> str:
    return listed([f"the {spoken(name)}" for name in names])


def _without_the(items: Sequence[str]) -> tuple[str, ...]:
    return tuple(unspoken(item.removeprefix("the ")) for item in items)
