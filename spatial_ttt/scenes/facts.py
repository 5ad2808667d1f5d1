"""What can be said of a scene that was seen: function, counts, layout, relations, order.

The facts of a description, before wording and after parsing. Relations hold between objects that
are the only one of their category:

on        a rests on b: its underside is at b's top and its centre over b
above     a hangs over b: its underside is clear of b's top and its centre over b
next to   at most NEXT_TO apart, neither on nor above the other
far from  at least FAR_FROM apart

Distances are those of object_abs_distance questions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from spatial_ttt.scenes.boxes import points_in_polygon
from spatial_ttt.scenes.questions.seen import Observation
from spatial_ttt.scenes.rules import APPEARANCE_GAP, room_size_text
from spatial_ttt.scenes.scene import Room, Scene
from spatial_ttt.scenes.stacking import hangs_above, rests_on
from spatial_ttt.scenes.wording import ORDINALS

NEXT_TO, FAR_FROM = 0.4, 4.0
"""Metres between closest points."""
MAX_ORDER = 8
"""Most categories named in the order of the walk."""

PURPOSES = {
    "bedroom": "sleeping",
    "kitchen": "cooking",
    "living room": "sitting together",
    "bathroom": "washing",
    "office": "working",
    "dining room": "eating",
    "hallway": "passing through",
    "laundry room": "doing the laundry",
    "storage room": "storing things",
    "children's room": "playing",
}
"""What a room of each function is for; others are 'everyday life'."""
_TELLING = {
    "bathroom": ("toilet", "bathtub", "shower"),
    "bedroom": ("bed", "nightstand", "wardrobe"),
    "kitchen": ("stove", "refrigerator", "dishwasher", "oven", "microwave"),
    "living room": ("sofa", "fireplace", "coffee table", "tv stand"),
    "office": ("desk", "monitor", "office chair", "keyboard", "whiteboard"),
}
"""Categories that give away the function of a room without a floor plan, strongest first."""


@dataclass(frozen=True, slots=True)
class SceneFacts:
    """Everything a dense scene description says."""

    rooms: tuple[str, ...]  # names in the order entered: "kitchen", "second bedroom"
    counts: dict[str, int]  # seen instances per category
    layout: dict[str, dict[str, int]] = field(default_factory=dict)  # room name -> counts
    relations: frozenset[tuple[str, str, str]] = frozenset()
    distances: dict[tuple[str, str], str] = field(default_factory=dict)  # pair -> metres
    order: tuple[str, ...] = ()  # categories as they came into view
    room_size: str | None = None  # m2


def purpose(room: str) -> str:
    """What a room of this name is for."""
    return PURPOSES.get(function_of(room), "everyday life")


def function_of(room: str) -> str:
    """The function in a room's name: "second bedroom" is a bedroom."""
    first, _, rest = room.partition(" ")
    return rest if first in ORDINALS else room


def room_names(rooms: list[Room]) -> dict[int, str]:
    """A name per room id; functions that occur twice are numbered in the order given."""
    functions = [room.function.strip().lower() or "room" for room in rooms]
    names: dict[int, str] = {}
    for n, (room, function) in enumerate(zip(rooms, functions, strict=True)):
        if functions.count(function) == 1:
            names[room.room_id] = function
        else:
            rank = functions[:n].count(function)
            number = ORDINALS[rank] if rank < len(ORDINALS) else f"{rank + 1}th"
            names[room.room_id] = f"{number} {function}"
    return names


def guess_function(counts: Mapping[str, int]) -> str:
    """The function of a scan's only known room, from what stands in it."""
    scores = {
        function: sum(1 for name in names if counts.get(name))
        for function, names in _TELLING.items()
    }
    best = max(scores, key=lambda function: scores[function])
    return best if scores[best] else "room"


def all_facts(seen: Observation) -> SceneFacts:
    """Every fact of what was seen; a description chooses among the relations and distances."""
    counts = {name: len(members) for name, members in seen.stock.members.items()}
    by_id = {room.room_id: room for room in seen.scene.rooms}
    entered = [by_id[room_id] for room_id in seen.rooms_entered]
    names = room_names(entered)
    layout = _layout(seen, names)
    known_size = seen.scene.room_size is not None and seen.saw_every_room
    relations, distances = _relations(seen)
    return SceneFacts(
        rooms=tuple(names.values()) or (guess_function(counts),),
        counts=counts,
        layout=layout,
        relations=relations,
        distances=distances,
        order=walk_order(seen),
        room_size=room_size_text(seen.scene.room_size or 0.0) if known_size else None,
    )


def _layout(seen: Observation, names: dict[int, str]) -> dict[str, dict[str, int]]:
    layout: dict[str, dict[str, int]] = {name: {} for name in names.values()}
    for item in seen.objects:
        room_id = (
            item.room_id if item.room_id is not None else _room_at(seen.scene, item.box.center)
        )
        if room_id in names:
            room = layout[names[room_id]]
            room[item.category] = room.get(item.category, 0) + 1
    return {room: counts for room, counts in layout.items() if counts}


def _room_at(scene: Scene, center: np.ndarray) -> int | None:
    for room in scene.rooms:
        if bool(points_in_polygon(center[:2], room.polygon)):
            return room.room_id
    return None


def walk_order(seen: Observation) -> tuple[str, ...]:
    """Categories as they came into view, each clearly before the next leaves its first trace."""
    order: list[str] = []
    for name in sorted(seen.first_clear, key=lambda name: seen.first_clear[name]):
        if order and seen.first_trace[name] - seen.first_clear[order[-1]] <= APPEARANCE_GAP:
            continue
        order.append(name)
    return tuple(order[:MAX_ORDER]) if len(order) > 1 else ()


def _relations(
    seen: Observation,
) -> tuple[frozenset[tuple[str, str, str]], dict[tuple[str, str], str]]:
    """Relations between single objects, and the distances of those that stand apart."""
    names = seen.stock.singles()
    index = np.array([int(seen.stock.members[name][0]) for name in names], dtype=np.intp)
    boxes = seen.stock.boxes.take(index)
    a, b = np.nonzero(~np.eye(len(names), dtype=bool))
    distance = seen.stock.apart(index[a], index[b])
    on = rests_on(boxes.take(a), boxes.take(b))
    above = hangs_above(boxes.take(a), boxes.take(b))
    stacked = {(int(i), int(j)) for i, j, s in zip(a, b, on | above, strict=True) if s}
    relations: set[tuple[str, str, str]] = set()
    distances: dict[tuple[str, str], str] = {}
    for n, (i, j) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        pair = (names[i], names[j])
        if on[n] or above[n]:
            relations.add((pair[0], "on" if on[n] else "above", pair[1]))
        elif i > j or (j, i) in stacked:
            continue
        elif distance[n] <= NEXT_TO:
            relations.add((pair[0], "next to", pair[1]))
        else:
            if distance[n] >= FAR_FROM:
                relations.add((pair[0], "far from", pair[1]))
            distances[pair] = f"{round(float(distance[n]), 1):.1f}"
    return frozenset(relations), distances
