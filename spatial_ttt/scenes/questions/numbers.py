"""Questions answered by a number: counting, distance, object size, room size.

Each picks among its candidates evenly over the answers, not over the objects: common answers would
otherwise pay a viewer who does not look.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from spatial_ttt.scenes import rules
from spatial_ttt.scenes.questions import templates
from spatial_ttt.scenes.questions.question import Facts, Question
from spatial_ttt.scenes.questions.seen import Observation
from spatial_ttt.scenes.scene import Array
from spatial_ttt.scenes.wording import spoken

_ANSWER_BINS = 8  # per factor of ten: one bin spans a third of its lower end


def spread(answers: Array, rng: Generator, limit: int) -> list[int]:
    """Indices of up to `limit` answers, one value bin after another in random order."""
    bins = np.floor(np.log10(np.maximum(answers, 1e-3)) * _ANSWER_BINS)
    order = rng.permutation(len(answers))
    rank_in_bin: dict[float, int] = {}
    keys = []
    for index in order:
        rank = rank_in_bin.get(float(bins[index]), 0)
        rank_in_bin[float(bins[index])] = rank + 1
        keys.append((rank, float(rng.random()), int(index)))
    return [index for _, _, index in sorted(keys)[:limit]]


def _number(seen: Observation, kind: str, words: str, answer: str, facts: Facts) -> Question:
    return Question(kind, words, None, answer, seen.scene.scene_id, seen.until_s, facts)


def object_counting(seen: Observation, rng: Generator, limit: int) -> list[Question]:
    """Categories of which at least two were seen; no names that are plurals, such as books."""
    names = [
        name
        for name, members in seen.stock.members.items()
        if len(members) >= 2 and spoken(name) == name
    ]
    counts = np.array([len(seen.stock.members[name]) for name in names], dtype=np.float64)
    return [
        _number(
            seen,
            "object_counting",
            templates.ask_count(names[n]),
            str(int(counts[n])),
            {"categories": [names[n]]},
        )
        for n in spread(counts, rng, limit)
    ]


def object_abs_distance(seen: Observation, rng: Generator, limit: int) -> list[Question]:
    """Pairs of single categories that are not nearly touching."""
    names = seen.stock.singles()
    index = np.array([seen.stock.members[name][0] for name in names], dtype=np.intp)
    first, second = np.triu_indices(len(names), 1)
    distances = seen.stock.apart(index[first], index[second])
    far = np.flatnonzero(distances >= rules.MIN_DISTANCE)
    questions = []
    for n in far[spread(distances[far], rng, limit)]:
        pair = [names[first[n]], names[second[n]]]
        if rng.random() < 0.5:
            pair.reverse()
        questions.append(
            _number(
                seen,
                "object_abs_distance",
                templates.ask_distance(*pair),
                rules.distance_text(float(distances[n])),
                {"categories": pair, "distance_m": float(distances[n])},
            )
        )
    return questions


def object_size_estimation(seen: Observation, rng: Generator, limit: int) -> list[Question]:
    """The longest side of objects that are the only one of their category."""
    names = seen.stock.singles()
    index = np.array([seen.stock.members[name][0] for name in names], dtype=np.intp)
    longest = seen.stock.boxes.size[index].max(1, initial=0.0)
    return [
        _number(
            seen,
            "object_size_estimation",
            templates.ask_size(names[n]),
            rules.longest_side_text(seen.stock.boxes.size[index[n]]),
            {"categories": [names[n]]},
        )
        for n in spread(longest, rng, limit)
    ]


def room_size_estimation(seen: Observation, rng: Generator, limit: int) -> list[Question]:
    """The floor area, once the camera has been in every room."""
    if seen.scene.room_size is None or not seen.saw_every_room or limit < 1:
        return []
    answer = rules.room_size_text(seen.scene.room_size)
    return [_number(seen, "room_size_estimation", templates.ask_room_size(), answer, {})]
