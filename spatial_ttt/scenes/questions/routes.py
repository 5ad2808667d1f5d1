"""Routes: from one object to another in straight free legs, with the turns left to fill in.

The robot starts at an object, faces another, and rolls towards landmarks until just before them.
Each turn is taken at the stop before the next leg. A turn is asked about only if it stays the same
turn whether one thinks of the robot as standing at its stop or at the landmark itself.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.random import Generator

from spatial_ttt.scenes import rules
from spatial_ttt.scenes.boxes import stack
from spatial_ttt.scenes.questions import templates
from spatial_ttt.scenes.questions.choices import choice
from spatial_ttt.scenes.questions.plan import (
    CLEARANCE,
    Plan,
    entry,
    floor_plan,
    free_ways,
    rectangles,
)
from spatial_ttt.scenes.questions.question import Question
from spatial_ttt.scenes.questions.seen import Observation
from spatial_ttt.scenes.scene import Array

T = TypeVar("T")

TURNS = {"Turn Left": (35.0, 120.0), "Turn Back": (150.0, 210.0), "Turn Right": (240.0, 325.0)}
"""Bearings, degrees counter-clockwise, of a clear turn; what lies between is ambiguous."""
MIN_LEG = 0.6
"""Shortest way to roll, metres."""
STOP_GAP = CLEARANCE + 0.05
"""How far before a landmark the robot stops, metres."""
NUM_OPTIONS = 4
_MAX_LANDMARKS = 20
_TRIES = 24


@dataclass(frozen=True, slots=True, eq=False)
class _Leg:
    """A straight way to a landmark."""

    landmark: int
    start: Array  # [2] where the robot sets off
    stop: Array  # [2] where it stops


@dataclass(frozen=True, slots=True)
class _Ground:
    """The plan and the landmarks on it, and the legs found so far."""

    plan: Plan
    names: list[str]
    center: Array  # [L, 2]
    shapes: tuple[Array, Array, Array]  # rectangles of the landmarks, grown by the stopping gap
    first_legs: dict[int, list[_Leg]] = field(default_factory=dict)  # by landmark set off from
    next_legs: dict[_Leg, list[tuple[_Leg, str]]] = field(default_factory=dict)


def route_planning(seen: Observation, rng: Generator, limit: int) -> list[Question]:
    """Routes of one to three turns over single objects on a known floor plan."""
    scene = seen.scene
    if limit < 1 or not (scene.rooms or (scene.room_size or np.inf) <= rules.LARGE_ROOM):
        return []  # without walls on record, a larger scan may hide one between two objects
    ground = _ground(seen, rng)
    if ground is None:
        return []
    questions: list[Question] = []
    asked: set[str] = set()
    for attempt in range(_TRIES):
        # Long routes are rare: at first a route must have as many turns as were drawn for it.
        question = _try_route(seen, ground, rng, shorter_will_do=attempt >= _TRIES // 2)
        if question is not None and question.question not in asked:
            asked.add(question.question)
            questions.append(question)
            if len(questions) == limit:
                break
    return questions


def _ground(seen: Observation, rng: Generator) -> _Ground | None:
    """The plan from every box there is, and up to `_MAX_LANDMARKS` seen single objects on it."""
    all_boxes = stack(seen.scene.objects)
    floor = 0.0
    if not seen.scene.rooms and len(all_boxes):
        floor = float((all_boxes.center[:, 2] - all_boxes.size[:, 2] / 2).min())
    plan = floor_plan(seen.scene, all_boxes, floor)
    standing = {int(owner) for owner in plan.owner}
    place = {item.object_id: n for n, item in enumerate(seen.scene.objects)}
    names, index = [], []
    for name in seen.stock.singles():
        n = place[seen.objects[int(seen.stock.members[name][0])].object_id]
        if n in standing:
            names.append(name)
            index.append(n)
    if len(names) < 3:
        return None
    keep = np.sort(rng.permutation(len(names))[:_MAX_LANDMARKS])
    chosen = np.array(index, dtype=np.intp)[keep]
    center, half, axes = rectangles(all_boxes.take(chosen))
    shapes = (center, half + STOP_GAP, axes)
    return _Ground(plan, [names[k] for k in keep], center, shapes)


def _try_route(
    seen: Observation, ground: _Ground, rng: Generator, *, shorter_will_do: bool
) -> Question | None:
    count = len(ground.names)
    origin = int(rng.integers(count))
    num_turns = int(rng.integers(1, 4))
    visited = {origin}
    first = _pick(_first_legs(ground, origin), rng)
    if first is None:
        return None
    legs, turns = [first], []
    facing = first.landmark
    if rng.random() < 0.5:  # face something else first: the route then begins with a turn
        turned = _first_turn(ground, origin, first, rng)
        if turned is None:
            return None
        facing, turn = turned
        turns.append(turn)
    visited.add(first.landmark)
    while len(turns) < num_turns:
        step = _next_leg(ground, legs[-1], visited, rng)
        if step is None:
            break
        leg, turn = step
        legs.append(leg)
        turns.append(turn)
        visited.add(leg.landmark)
    if not turns or facing in {leg.landmark for leg in legs[1:]}:
        return None
    if len(turns) < num_turns and not shorter_will_do:
        return None
    return _ask(seen, ground, rng, _Route(origin, facing, legs, turns))


def _first_legs(ground: _Ground, origin: int) -> list[_Leg]:
    """Free legs from a landmark; the robot stands at its edge on the way out."""
    if origin not in ground.first_legs:
        ends = _others(ground.center, origin)
        shape = tuple(part[origin : origin + 1] for part in ground.shapes)
        back = entry((shape[0], shape[1], shape[2]), ends, ground.center[origin])
        leave = 1.0 - np.where(np.isfinite(back), back, 1.0)  # share at which its edge is left
        starts = ground.center[origin] + leave[:, None] * (ends - ground.center[origin])
        ground.first_legs[origin] = _legs(ground, starts, origin)
    return ground.first_legs[origin]


def _legs(ground: _Ground, starts: Array, at: int) -> list[_Leg]:
    """Free legs from `starts` [L - 1, 2] to all landmarks but the one the robot is `at`.

    From a stop before a landmark it must not roll over that landmark.
    """
    ends = _others(ground.center, at)
    length = np.linalg.norm(ends - starts, axis=1)
    shapes = tuple(_others(part, at) for part in ground.shapes)
    share = entry((shapes[0], shapes[1], shapes[2]), starts, ends)
    stops = starts + np.minimum(share, 1.0)[:, None] * (ends - starts)
    rolled = np.minimum(share, 1.0) * length
    far = np.flatnonzero((rolled >= MIN_LEG) & (share > 0))
    free = far[free_ways(ground.plan, starts[far], stops[far])]
    return [_Leg(int(n) + (n >= at), starts[n], stops[n]) for n in free]


def _others(rows: Array, index: int) -> Array:
    """All rows but one."""
    return np.concatenate([rows[:index], rows[index + 1 :]])


def _pick(legs: list[_Leg], rng: Generator) -> _Leg | None:
    return legs[int(rng.integers(len(legs)))] if legs else None


def _turns(place: Array, ahead: Array, target: Array) -> list[str | None]:
    """The turns to make at `place`, facing the point `ahead`, towards `target`; points [N, 2]."""
    degrees = rules.bearing(place, ahead, target).tolist()
    ranges = TURNS.items()
    return [next((t for t, (low, high) in ranges if low <= d <= high), None) for d in degrees]


def _first_turn(
    ground: _Ground, origin: int, first: _Leg, rng: Generator
) -> tuple[int, str] | None:
    """Something to face at first, and the turn from it to the first leg."""
    target = ground.center[first.landmark]
    from_start = _turns(first.start, ground.center, target)
    from_middle = _turns(ground.center[origin], ground.center, target)
    options: dict[str, list[int]] = {}
    for other, (turn, same) in enumerate(zip(from_start, from_middle, strict=True)):
        if turn is not None and turn == same and other not in (origin, first.landmark):
            options.setdefault(turn, []).append(other)
    return _draw(options, rng)


def _next_leg(
    ground: _Ground, last: _Leg, visited: set[int], rng: Generator
) -> tuple[_Leg, str] | None:
    """A leg from the last stop that begins with a clear turn, all turns alike."""
    if last not in ground.next_legs:
        ground.next_legs[last] = _clear_turns(ground, last)
    options: dict[str, list[_Leg]] = {}
    for leg, turn in ground.next_legs[last]:
        if leg.landmark not in visited:
            options.setdefault(turn, []).append(leg)
    return _draw(options, rng)


def _clear_turns(ground: _Ground, last: _Leg) -> list[tuple[_Leg, str]]:
    """Free legs from the last stop with the turns they begin with, where these are clear."""
    starts = np.broadcast_to(last.stop, (len(ground.center) - 1, 2))
    legs = _legs(ground, starts, last.landmark)
    if not legs:
        return []
    heading = last.stop - last.start
    beyond, targets = ground.center[last.landmark], ground.center[[leg.landmark for leg in legs]]
    from_stop = _turns(last.stop, last.stop + heading, targets)
    from_beyond = _turns(beyond, beyond + ((last.stop + heading) - last.stop), targets)
    return [
        (leg, turn)
        for leg, turn, same in zip(legs, from_stop, from_beyond, strict=True)
        if turn is not None and turn == same
    ]


def _draw(options: dict[str, list[T]], rng: Generator) -> tuple[T, str] | None:
    """A turn among those possible, then one of its ways."""
    if not options:
        return None
    turn = sorted(options)[int(rng.integers(len(options)))]
    ways = options[turn]
    return ways[int(rng.integers(len(ways)))], turn


@dataclass(frozen=True, slots=True)
class _Route:
    origin: int
    facing: int
    legs: list[_Leg]
    turns: list[str]


def _ask(seen: Observation, ground: _Ground, rng: Generator, route: _Route) -> Question:
    names = ground.names
    actions: list[str] = []
    starts_with_turn = route.facing != route.legs[0].landmark
    for n, leg in enumerate(route.legs):
        if n > 0 or starts_with_turn:
            actions.append(templates.BLANK)
        actions.append(f"Go forward until the {names[leg.landmark]}")
    every = [", ".join(turns) for turns in itertools.product(TURNS, repeat=len(route.turns))]
    right = ", ".join(route.turns)
    wrong = [text for text in every if text != right]
    picked = rng.permutation(len(wrong))[: NUM_OPTIONS - 1]
    goal = names[route.legs[-1].landmark]
    words = templates.ask_route(names[route.origin], names[route.facing], goal, tuple(actions))
    facts = {
        "categories": [names[route.origin], names[route.facing]]
        + [names[leg.landmark] for leg in route.legs],
        "ways": [[leg.start.tolist(), leg.stop.tolist()] for leg in route.legs],
    }
    options = (right, *(wrong[n] for n in picked))
    return choice(seen, rng, ("route_planning", words), options, facts)
