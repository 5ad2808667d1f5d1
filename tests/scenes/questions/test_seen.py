"""What counts as seen: clear views, traces, moments, rooms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.questions.seen import SeenRule, observe, observe_all
from spatial_ttt.scenes.scene import Camera, OrientedBox, Scene, SceneObject, Visibility
from tests.scenes.places import flat, walk

AREA = 100 * 100


def scene_of(*categories: str) -> Scene:
    objects = tuple(
        SceneObject(n, name, OrientedBox(np.array([2.0 * n, 0, 0]), np.ones(3), np.eye(3)))
        for n, name in enumerate(categories, 1)
    )
    return Scene("s", "test", objects, object_counts={})


def film(pixels: list[list[int]]) -> tuple[Visibility, Camera]:
    count = len(pixels)
    pose = np.tile(np.eye(4), (count, 1, 1))
    times = np.arange(count) * 2.0
    ids = np.arange(1, len(pixels[0]) + 1, dtype=np.int32)
    visibility = Visibility(ids, np.array(pixels, dtype=np.int32), times)
    return visibility, Camera(100, 100, np.eye(3), pose, times)


def test_clear_trace_and_nothing() -> None:
    # 20 pixels of 10,000 are clear, 1 is no trace yet, 2 are.
    scene = scene_of("bed", "sofa", "tv", "tv", "lamp")
    seen = observe(scene, *film([[0, 1, 0, 20, 0], [20, 0, 19, 0, 0]]))
    assert list(seen.stock.members) == ["bed"], (
        "the sofa is no more than a trace, one tv was glimpsed so no tv counts, the lamp is unseen"
    )
    assert seen.first_clear == {"bed": 2.0} and seen.first_trace == {"bed": 2.0}


def test_times_are_those_of_the_earliest_instance() -> None:
    scene = scene_of("bed", "bed")
    seen = observe(scene, *film([[0, 5], [0, 50], [5, 0], [50, 0]]))
    assert (seen.first_trace["bed"], seen.first_clear["bed"]) == (0.0, 2.0)
    assert len(seen.stock.members["bed"]) == 2


def test_only_what_was_seen_by_then_counts() -> None:
    scene = scene_of("bed", "sofa", "tv")
    pixels = [[50, 0, 0], [0, 10, 0], [0, 50, 0], [0, 0, 50]]
    for until, names in ((0.0, ["bed"]), (3.9, ["bed"]), (4.0, ["bed", "sofa"]), (9.0, None)):
        seen = observe(scene, *film(pixels), until)
        assert list(seen.stock.members) == (names or ["bed", "sofa", "tv"])
        assert seen.until_s == until
    assert observe(scene, *film(pixels)).until_s == 6.0


def test_the_rule_can_be_set() -> None:
    scene = scene_of("bed", "sofa")
    strict = SeenRule(clear_share=0.5, trace_share=0.1)
    seen = observe(scene, *film([[4000, 5000]]), rule=strict)
    assert list(seen.stock.members) == ["sofa"]


def test_structure_is_never_asked_about() -> None:
    scene = scene_of("wall", "floor", "bed")
    assert list(observe(scene, *film([[900, 900, 900]])).stock.members) == ["bed"]
    assert list(observe_all(scene).stock.members) == ["bed"]


def test_boxes_that_are_fewer_than_counted_are_left_out() -> None:
    scene = replace(scene_of("bed", "sofa"), object_counts={"bed": 2, "sofa": 1})
    assert list(observe_all(scene).stock.members) == ["sofa"]


def test_rooms_in_the_order_entered() -> None:
    scene = flat(3, 3)
    camera, visibility = walk(scene)
    whole = observe(scene, visibility, camera)
    assert whole.rooms_entered == (1, 2, 3) and whole.saw_every_room
    part = observe(scene, visibility, camera, float(camera.times[5]))
    assert part.rooms_entered == (1,) and not part.saw_every_room
    backwards = replace(camera, camera_to_world=camera.camera_to_world[::-1])
    assert observe(scene, visibility, backwards).rooms_entered == (3, 2, 1)


def test_wrong_input_is_said() -> None:
    scene = scene_of("bed")
    visibility, camera = film([[5], [5]])
    with pytest.raises(SceneError, match="no frame was seen by -1"):
        observe(scene, visibility, camera, -1.0)
    with pytest.raises(SceneError, match=r"expected \(2, 1\)"):
        observe(scene, replace(visibility, pixels=visibility.pixels.T), camera)
