"""Something to remember: in some homes an unusual thing stands by a piece of furniture.

A clip is asked by what it stands, of two things and of all. A stream of four such homes is asked in which
order, in the words of VSI-SUPER's recall, and before that in smaller steps. The thing is placed as in long streams.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, pairwise

import numpy as np
from numpy.random import Generator

from spatial_ttt.scenes.catalogue import UNUSUAL
from spatial_ttt.scenes.chain import LANDMARKS, Spot, place_unusual
from spatial_ttt.scenes.dice import Dice
from spatial_ttt.scenes.homes import Home
from spatial_ttt.scenes.physics import rooms_at
from spatial_ttt.scenes.questions import templates
from spatial_ttt.scenes.questions.appearance import NUM_ORDERED
from spatial_ttt.scenes.questions.question import Question
from spatial_ttt.scenes.questions.seen import SeenRule
from spatial_ttt.scenes.questions.streams import Sighting, recall_question
from spatial_ttt.scenes.scene import Camera, Visibility
from spatial_ttt.train.clip_types import MAX_OBJECTS, Needle, Record

SHARE = 0.35  # of the homes walked through that are given an unusual thing, where there is a spot
WITH_OPTIONS = 4  # times an order is asked with options, which differ
PAIRS = 3  # of places of which it is asked which came first, or by which of them the thing is
ORDINALS = ("first", "second", "third", "fourth")


def hide(home: Home, camera: Camera, dice: Dice) -> tuple[Home, Spot] | None:
    """The home with one unusual thing more in a room the camera enters; None if there is no spot."""
    kind = dice.pick(tuple(UNUSUAL))
    is_there = any(thing.furniture.category == kind for thing in home.placed)
    if is_there or len(home.placed) >= MAX_OBJECTS - 1:
        return None
    rooms = rooms_at(home.scene, camera.camera_to_world[:, :2, 3])
    return place_unusual(home, kind, dice, (), tuple(sorted({int(room) for room in rooms} - {-1})))


def needle(
    spot: Spot, visibility: Visibility, camera: Camera, index: Mapping[str, int]
) -> Needle | None:
    """What a clip has to remember, if the thing is clearly seen in it; `index` numbers the categories."""
    column = int(np.flatnonzero(visibility.object_ids == spot.object_id)[0])
    area = camera.width * camera.height
    clear = visibility.pixels[:, column] >= SeenRule().clear_share * area
    if not clear.any():
        return None
    return Needle(index[spot.category], index[spot.landmark], clear)


def spot_questions(spot: Spot, seen: Iterable[str], rng: Generator) -> list[tuple[str, str, str]]:
    """By what the thing stands: kind, question, answer; first of all that is `seen`, then of two at a time."""
    thing, place = spot.category, spot.landmark
    asked = [("dense_spot", f"Next to what is the {thing}?", place)]
    others = sorted(set(seen) & set(LANDMARKS) - {place})
    for n in rng.permutation(len(others))[:PAIRS].tolist():
        a, b = (place, others[n]) if rng.random() < 0.5 else (others[n], place)
        asked.append(("dense_spot", f"Is the {thing} next to the {a} or the {b}?", place))
    return asked


# --- Streams -------------------------------------------------------------------------------------


def hidden(records: Sequence[Record | None], ready: Sequence[int]) -> dict[int, list[int]]:
    """Places of clips with something to remember, by the thing's category."""
    found: dict[int, list[int]] = {}
    for place in ready:
        record = records[place]
        if record is not None and record.needle is not None:
            found.setdefault(record.needle.item, []).append(place)
    return found


def draw_hidden(
    records: Sequence[Record | None],
    by_item: Mapping[int, Sequence[int]],
    frames: slice,
    count: int,
    rng: Generator,
) -> list[tuple[int, Needle]]:
    """`count` clips that show one thing, seen in these `frames`, by different furniture; [] if there are none."""
    for item in rng.permutation(sorted(by_item)).tolist():
        chosen: dict[int, tuple[int, Needle]] = {}
        for place in rng.permutation(by_item[item]).tolist():
            record = records[place]
            one = record.needle if record is not None else None
            if one is not None and one.clear[frames].any():
                chosen.setdefault(one.place, (place, one))
            if len(chosen) == count:
                return list(chosen.values())
    return []


def spread_out(slots: int, longest: int, count: int, rng: Generator) -> list[int]:
    """In which of a stream's slots the clips that show the thing, `longest` each, begin: one in each part of it."""
    borders = [n * slots // count for n in range(count + 1)] if count else []
    return [int(rng.integers(low, high - longest + 1)) for low, high in pairwise(borders)]


def small_steps(item: str, places: Sequence[str], rng: Generator) -> list[tuple[str, str]]:
    """Questions and answers about the order in which a thing appeared by these places."""
    asked = [
        (f"Next to what did the {item} appear {ordinal}?", place)
        for ordinal, place in zip(ORDINALS, places, strict=False)
    ]
    pairs = list(combinations(places, 2))
    for n in rng.permutation(len(pairs))[:PAIRS].tolist():
        a, b = pairs[n] if rng.random() < 0.5 else pairs[n][::-1]
        words = f"Next to which did the {item} appear first, the {a} or the {b}?"
        asked.append((words, pairs[n][0]))
    return asked


def orders(item: str, places: Sequence[str], rng: Generator) -> list[Question]:
    """The benchmark's question, several times with other options; [] unless there are four places."""
    if len(places) != NUM_ORDERED:
        return []
    seen = [Sighting(float(n), place) for n, place in enumerate(places)]
    return [recall_question("", item, seen, 0.0, rng) for _ in range(WITH_OPTIONS)]


def order_in_words(item: str, places: Sequence[str]) -> tuple[str, str]:
    """The benchmark's question without options, and what its right option says."""
    return templates.ask_recall(item), ", ".join(place.capitalize() for place in places)
