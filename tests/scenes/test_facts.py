"""The facts of a scene, counted and measured again by plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from spatial_ttt.scenes import facts as F
from spatial_ttt.scenes.questions import observe, observe_all
from spatial_ttt.scenes.scene import OrientedBox, Room, Scene, SceneObject
from tests.scenes.places import flat, walk
from tests.scenes.questions.rederive import Witness, least_squares


@pytest.mark.parametrize("seed", range(12))
def test_facts_of_a_flat(seed: int) -> None:
    scene = flat(seed, 1 + seed % 4, 8)
    camera, visibility = walk(scene, seed)
    found = F.all_facts(observe(scene, visibility, camera))
    witness = Witness(scene, camera, visibility)
    known = [item for item in witness.seen if item.category not in witness.glimpsed]
    counts: dict[str, int] = {}
    layout: dict[str, dict[str, int]] = {}
    names = {room.room_id: room.function for room in scene.rooms}
    for item in known:
        counts[item.category] = counts.get(item.category, 0) + 1
        here = layout.setdefault(names[item.room_id or 0], {})
        here[item.category] = here.get(item.category, 0) + 1
    assert found.counts == counts and found.layout == layout
    assert found.rooms == tuple(room.function for room in scene.rooms)
    assert found.room_size == f"{scene.room_size:.1f}"
    single = {item.category: item for item in known if counts[item.category] == 1}
    for a, kind, b in found.relations:
        metres = least_squares(single[a], single[b])
        assert kind in ("next to", "far from"), "nothing is stacked in these flats"
        assert (metres <= 0.4 + 1e-6) if kind == "next to" else (metres >= 4.0 - 1e-6)
    pairs = {frozenset(pair) for pair in found.distances}
    pairs |= {frozenset((a, b)) for a, kind, b in found.relations if kind == "next to"}
    assert len(pairs) == math.comb(len(single), 2), "each pair is measured, or side by side"
    for (a, b), metres_text in found.distances.items():
        assert abs(float(metres_text) - least_squares(single[a], single[b])) < 0.051
    for before, after in zip(found.order, found.order[1:], strict=False):
        assert witness.first_trace[after] > witness.first_clear[before] + 1.0


def test_stacked_things() -> None:
    def thing(n: int, name: str, x: float, bottom: float, size: float) -> SceneObject:
        center = np.array([x, 0, bottom + size / 2])
        return SceneObject(n, name, OrientedBox(center, np.full(3, size), np.eye(3)))

    scene = Scene(
        "s",
        "test",
        (
            thing(1, "desk", 0, 0, 0.8),
            thing(2, "monitor", 0.1, 0.8, 0.4),
            thing(3, "picture", 0, 1.6, 0.3),
            thing(4, "bin", 0.8, 0, 0.3),
        ),
    )
    found = F.all_facts(observe_all(scene)).relations
    assert ("monitor", "on", "desk") in found and ("picture", "above", "desk") in found
    assert ("picture", "above", "monitor") in found
    assert not any({a, b} == {"monitor", "desk"} for a, kind, b in found if kind != "on")
    assert ("desk", "next to", "bin") in found or ("bin", "next to", "desk") in found


def test_rooms_of_one_function_are_numbered() -> None:
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=float)
    rooms = [
        Room(n, name, square, 2.5) for n, name in ((4, "Bedroom"), (2, "kitchen"), (9, "bedroom"))
    ]
    assert F.room_names(rooms) == {4: "first bedroom", 2: "kitchen", 9: "second bedroom"}
    assert F.function_of("second bedroom") == "bedroom" and F.function_of("kitchen") == "kitchen"
    assert F.purpose("second bedroom") == "sleeping" and F.purpose("attic") == "everyday life"
    many = [Room(n, "office", square, 2.5) for n in range(9)]
    assert F.room_names(many)[8] == "9th office"


def test_a_scan_without_rooms_is_named_by_its_furniture() -> None:
    assert F.guess_function({"bed": 1, "nightstand": 2, "desk": 1}) == "bedroom"
    assert F.guess_function({"toilet": 1}) == "bathroom"
    assert F.guess_function({"plant": 3}) == "room"


def test_an_object_without_a_room_is_found_by_its_place() -> None:
    scene = flat(1, 2)
    bare = tuple(SceneObject(o.object_id, o.category, o.box) for o in scene.objects)
    found = [
        F.all_facts(observe_all(Scene("s", "test", objects, scene.rooms))).layout
        for objects in (scene.objects, bare)
    ]
    assert found[0] == found[1]
