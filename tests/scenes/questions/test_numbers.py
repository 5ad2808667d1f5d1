"""Number questions: what they ask, and that they spread over the answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from spatial_ttt.scenes.questions import numbers
from spatial_ttt.scenes.questions.seen import observe_all
from spatial_ttt.scenes.scene import OrientedBox, Scene, SceneObject


def scene_of(names: str, step: float = 1.5) -> Scene:
    objects = tuple(
        SceneObject(
            n, name, OrientedBox(np.array([step * n, 0, 0]), np.full(3, 0.1 * n), np.eye(3))
        )
        for n, name in enumerate(names.split(), 1)
    )
    return Scene("s", "test", objects, room_size=31.25)


def test_spread_takes_every_size_of_answer_before_any_twice() -> None:
    answers = np.array([2.0] * 50 + [5.0] * 3 + [9.0])
    first = Counter()
    for seed in range(200):
        picked = numbers.spread(answers, np.random.default_rng(seed), 3)
        assert sorted(answers[picked]) == [2, 5, 9]
        first[answers[picked[0]]] += 1
    assert min(first.values()) > 40, "the first place goes to all sizes alike"
    assert len(numbers.spread(answers, np.random.default_rng(0), 99)) == 54


def test_counting_needs_two_and_no_plural_name() -> None:
    seen = observe_all(scene_of("bed chair chair lamp lamp lamp books books"))
    asked = numbers.object_counting(seen, np.random.default_rng(0), 9)
    assert {(q.question, q.ground_truth) for q in asked} == {
        ("How many chair(s) are in this room?", "2"),
        ("How many lamp(s) are in this room?", "3"),
    }


def test_distance_asks_about_single_objects_apart() -> None:
    seen = observe_all(scene_of("bed chair chair lamp tv"))
    asked = numbers.object_abs_distance(seen, np.random.default_rng(0), 9)
    assert {frozenset(q.facts["categories"]) for q in asked} == {
        frozenset(pair) for pair in (("bed", "lamp"), ("bed", "tv"), ("lamp", "tv"))
    }
    touching = observe_all(scene_of("bed lamp tv", step=0.15))
    assert numbers.object_abs_distance(touching, np.random.default_rng(0), 9) == []


def test_size_and_room() -> None:
    seen = observe_all(scene_of("bed chair chair lamp"))
    rng = np.random.default_rng(0)
    sizes = numbers.object_size_estimation(seen, rng, 9)
    assert {(q.facts["categories"][0], q.ground_truth) for q in sizes} == {
        ("bed", "10"),
        ("lamp", "40"),
    }
    (room,) = numbers.room_size_estimation(seen, rng, 5)
    assert room.ground_truth == "31.2"
    assert numbers.room_size_estimation(seen, rng, 0) == []
    unknown = observe_all(replace(seen.scene, room_size=None))
    assert numbers.room_size_estimation(unknown, rng, 5) == []


def test_both_orders_of_a_pair_are_used() -> None:
    seen = observe_all(scene_of("bed lamp"))
    orders = {
        numbers.object_abs_distance(seen, np.random.default_rng(s), 1)[0].question
        for s in range(20)
    }
    assert len(orders) == 2
