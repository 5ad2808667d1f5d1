"""The rules on cases worked out by hand: every sector of every direction, ties, borders, roundings."""

from __future__ import annotations

import numpy as np
import pytest

from spatial_ttt.scenes import rules
from spatial_ttt.scenes.boxes import yaw_axes
from spatial_ttt.scenes.scene import OrientedBox, SceneObject


def thing(object_id: int, category: str, x: float, y: float, side: float = 0.2) -> SceneObject:
    box = OrientedBox(np.array([x, y, 0.5]), np.full(3, side), np.eye(3))
    return SceneObject(object_id, category, box)


# I stand at the origin. Facing north, east or some other way, the target lies at so many degrees,
# counter-clockwise from the way I face.
GOLDEN = [
    (30, "left", "left", "front-left"),
    (80, "left", "left", "front-left"),
    (100, "left", "left", "back-left"),
    (130, "left", "left", "back-left"),
    (140, "left", "back", "back-left"),
    (175, "left", "back", "back-left"),
    (185, "right", "back", "back-right"),
    (220, "right", "back", "back-right"),
    (230, "right", "right", "back-right"),
    (265, "right", "right", "back-right"),
    (275, "right", "right", "front-right"),
    (350, "right", "right", "front-right"),
]


@pytest.mark.parametrize("heading", [90.0, 0.0, 217.0])
@pytest.mark.parametrize(("degrees", "easy", "medium", "hard"), GOLDEN)
def test_directions(heading: float, degrees: float, easy: str, medium: str, hard: str) -> None:
    def at(angle: float, far: float) -> tuple[float, float]:
        turned = np.radians(angle)
        return 5.0 + far * float(np.cos(turned)), -3.0 + far * float(np.sin(turned))

    objects = [
        thing(1, "bed", 5.0, -3.0),
        thing(2, "tv", *at(heading, 2.0)),
        thing(3, "sofa", *at(heading + degrees, 3.0)),
    ]
    stock = rules.inventory(objects)
    for level, expected in (("easy", easy), ("medium", medium), ("hard", hard)):
        kind = f"object_rel_direction_{level}"
        assert rules.relative_direction(stock, kind, "bed", "tv", "sofa") == expected


def test_heights_do_not_turn_a_direction() -> None:
    flat = rules.bearing(np.zeros(3), np.array([0, 1, 0.0]), np.array([1, 1, 0.0]))
    tall = rules.bearing(np.zeros(3), np.array([0, 1, 9.0]), np.array([1, 1, -9.0]))
    assert flat == tall == pytest.approx(315.0)


def test_bearings_stay_below_a_full_turn() -> None:
    ahead = np.array([[0.0, 1.0]])
    assert rules.bearing(np.zeros((1, 2)), ahead, ahead)[0] == 0.0
    nearly = rules.bearing(np.zeros(2), np.array([0.0, 1.0]), np.array([1e-17, 1.0]))
    assert rules.direction("object_rel_direction_hard", float(nearly)) in {
        "front-left",
        "front-right",
    }


def test_borders() -> None:
    degrees = np.array([0.0, 89.0, 135.0, 180.0, 226.0, 355.0])
    hard = rules.border_distance("object_rel_direction_hard", degrees)
    medium = rules.border_distance("object_rel_direction_medium", degrees)
    easy = rules.border_distance("object_rel_direction_easy", degrees)
    assert hard.tolist() == [0, 1, 45, 0, 44, 5]
    assert medium.tolist() == [0, 46, 0, 45, 1, 5]
    assert easy.tolist() == [0, 89, 45, 0, 46, 5]


def test_roundings() -> None:
    assert rules.room_size_text(26.37) == "26.4"
    assert rules.room_size_text(30.0) == "30.0"
    assert rules.distance_text(2.94) == "2.9"
    assert rules.longest_side_text(np.array([0.3, 1.7301, 0.83])) == "173"


def test_the_nearest_instance_counts() -> None:
    objects = [
        thing(1, "bed", 0, 0),
        thing(2, "chair", 9, 0),
        thing(3, "chair", 1, 0),
        thing(4, "lamp", 2, 0),
    ]
    stock = rules.exact_inventory(objects)
    assert rules.nearest(stock, ["lamp", "chair"], "bed") == "chair"
    assert rules.category_distance(stock, "bed", "chair") == pytest.approx(0.8)
    assert stock.singles() == ["bed", "lamp"]


def test_three_measures_of_one_distance() -> None:
    turned = OrientedBox(np.array([0, 0, 0.5]), np.array([1.0, 0.7, 0.4]), yaw_axes(0.3))
    objects = [SceneObject(1, "bed", turned), thing(2, "lamp", 3, 1, 0.5)]
    exact, closed, sampled = (
        rules.category_distance(make(objects), "bed", "lamp")
        for make in (rules.exact_inventory, rules.inventory, rules.sampled_inventory)
    )
    assert exact < closed < exact + 0.06
    assert exact <= sampled < exact + 0.15


def test_when_the_nearest_is_clear() -> None:
    assert rules.is_clear_nearest([0.2, 0.4, 0.6, 0.8], 20.0)
    assert not rules.is_clear_nearest([0.2, 0.3, 0.6, 0.8], 20.0), "two candidates are too alike"
    assert not rules.is_clear_nearest([0.1, 0.4, 0.6, 0.8], 20.0), "one nearly touches"
    assert not rules.is_clear_nearest([0.2, 0.4, 0.6, 0.8], 41.0), "large rooms need more"
    assert rules.is_clear_nearest([0.2, 0.55, 0.9, 1.3], 41.0)
    assert not rules.is_clear_nearest([0.2, 0.4, 0.6, 0.8], None), "unknown rooms count as large"


def test_appearance() -> None:
    times = {"bed": 4.0, "sofa": 1.0, "tv": 2.0}
    assert rules.appearance_order(times, ["bed", "tv", "sofa"]) == ("sofa", "tv", "bed")
    assert rules.is_clear_order([4.0, 1.0, 2.5])
    assert not rules.is_clear_order([4.0, 1.0, 2.0]), "exactly one second apart is not more"
