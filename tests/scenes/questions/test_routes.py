"""Routes: hand-made rooms where the only way is known. Every made-up one is walked in
test_generate."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from spatial_ttt.scenes.questions import observe_all, routes
from spatial_ttt.scenes.scene import OrientedBox, Room, Scene, SceneObject


def hall(**spots: tuple[float, float]) -> Scene:
    objects = tuple(
        SceneObject(
            n, name, OrientedBox(np.array([*spot, 0.4]), np.array([0.4, 0.4, 0.8]), np.eye(3))
        )
        for n, (name, spot) in enumerate(spots.items(), 1)
    )
    corners = np.array([[-9, -9], [9, -9], [9, 9], [-9, 9]], dtype=float)
    return Scene("hall", "test", objects, (Room(1, "hall", corners, 3.0),))


def asked_about(scene: Scene, tries: int = 60) -> list[tuple[str, str]]:
    seen = observe_all(scene)
    return [
        (question.question.split("turn right.'): ")[0], question.answer_text)
        for seed in range(tries)
        for question in routes.route_planning(seen, np.random.default_rng(seed), 3)
    ]


@pytest.mark.parametrize(
    ("goal", "turn"),
    [((4.0, 4.0), "Turn Right"), ((-4.0, 4.0), "Turn Left")],
)
def test_one_turn_at_a_corner(goal: tuple[float, float], turn: str) -> None:
    """From the bed north to the tv, then sideways to the sofa."""
    asked = asked_about(hall(bed=(0, -4), tv=(0, 4), sofa=goal))
    via = [
        answer
        for words, answer in asked
        if "beginning at the bed and facing the tv" in words and "to the sofa" in words
    ]
    assert via and set(via) == {turn}


def test_turning_back() -> None:
    asked = asked_about(hall(bed=(0, 0), tv=(0, 4), sofa=(0, -4)))
    back = [words for words, answer in asked if answer == "Turn Back"]
    assert any("at the bed and facing the tv. You want to navigate to the sofa" in w for w in back)


def test_a_way_barred_is_not_taken() -> None:
    free = hall(bed=(0, -4), tv=(0, 4), sofa=(4, 4))
    wall = OrientedBox(np.array([0.0, 0.0, 1.0]), np.array([16.0, 0.3, 2.0]), np.eye(3))
    barred = replace(free, objects=(*free.objects, SceneObject(9, "wall", wall)))
    assert any("at the bed" in words for words, _ in asked_about(free))
    assert not any("at the bed" in words for words, _ in asked_about(barred)), (
        "what the camera never saw, or nobody asks about, still stands in the way"
    )


def test_turns_that_are_nearly_straight_on_are_not_asked_about() -> None:
    asked = asked_about(hall(bed=(0, -6), tv=(0, 0), sofa=(0.5, 6)))
    assert not any("at the bed and facing the tv. You want to navigate to the sofa" in w
                   for w, _ in asked)  # fmt: skip


def test_without_walls_only_small_rooms_are_asked_about() -> None:
    scene = replace(hall(bed=(0, -4), tv=(0, 4), sofa=(4, 4)), rooms=())
    assert not asked_about(replace(scene, room_size=60.0))
    assert not asked_about(replace(scene, room_size=None))
    assert asked_about(replace(scene, room_size=30.0))


def test_options_and_lengths() -> None:
    spots = {name: (3.0 * (n % 4) - 4, 3.0 * (n // 4) - 4) for n, name in enumerate("abcdefghijk")}
    seen = observe_all(hall(**spots))
    blanks: Counter[int] = Counter()
    for seed in range(40):
        for question in routes.route_planning(seen, np.random.default_rng(seed), 2):
            count = question.question.split("turn right.'): ")[1].count("[please fill in]")
            blanks[count] += 1
            assert len(question.options or ()) == (3 if count == 1 else 4)
            assert len(question.answer_text.split(", ")) == count
    assert min(blanks[n] for n in (1, 2, 3)) >= 10, "a wide hall allows every length alike"
