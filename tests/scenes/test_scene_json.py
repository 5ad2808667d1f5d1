"""Scenes and cameras as JSON: exact round trips, and refusals that say what to mend."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes import scene_json
from spatial_ttt.scenes.boxes import yaw_axes
from spatial_ttt.scenes.scene import OrientedBox, Room, SceneObject
from tests.scenes.places import flat, walk


def as_text(record: Any) -> str:
    return json.dumps(record, sort_keys=True)


def test_a_scene_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    scene = replace(flat(3, 3), room_center=np.array([1 / 3, 2.0, np.pi]))
    scene_json.write_scene(scene, tmp_path / "scene.json")
    back = scene_json.read_scene(tmp_path / "scene.json")
    assert as_text(scene_json.scene_to_json(back)) == as_text(scene_json.scene_to_json(scene))
    for before, after in zip(scene.objects, back.objects, strict=True):
        assert (before.box.axes == after.box.axes).all()
        assert (before.box.center == after.box.center).all()
        assert (before.category, before.room_id) == (after.category, after.room_id)
    assert [r.function for r in back.rooms] == [r.function for r in scene.rooms]
    assert not back.objects[0].box.center.flags.writeable


def test_a_camera_comes_back_to_the_last_bit() -> None:
    camera, _ = walk(flat(1))
    record = json.loads(json.dumps(scene_json.camera_to_json(camera)))
    back = scene_json.camera_from_json(record)
    assert (back.camera_to_world == camera.camera_to_world).all()
    assert (back.times == camera.times).all() and (back.intrinsics == camera.intrinsics).all()
    assert (back.width, back.height) == (camera.width, camera.height)


def test_a_user_may_give_yaw_and_leave_the_rest_out() -> None:
    scene = scene_json.scene_from_json(
        {
            "format": 1,
            "scene_id": "mine",
            "source": "scan",
            "objects": [
                {"object_id": 1, "category": "chair", "center": [0, 0, 1], "size": [1, 1, 2],
                 "yaw": 0.5},
                {"object_id": 2, "category": "chair", "center": [3, 0, 1], "size": [1, 1, 2]},
            ],
        }
    )  # fmt: skip
    np.testing.assert_allclose(scene.objects[0].box.axes, yaw_axes(0.5))
    np.testing.assert_allclose(scene.objects[1].box.axes, np.eye(3))
    assert scene.object_counts == {"chair": 2}
    assert scene.room_size is None


def changed(path: list[Any], value: Any) -> dict[str, Any]:
    """A good record with one value replaced, or removed if the value is Ellipsis."""
    record = copy.deepcopy(scene_json.scene_to_json(flat(2)))
    place = record
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return record


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["format"], 2, "format 2, this version reads 1 to 1; update"),
        (["format"], ..., "lacks the field 'format'"),
        (["scene_id"], "", "expected a non-empty text"),
        (["shape"], 1, r"unknown fields \['shape'\]"),
        (["room_size"], -3.0, "room_size is -3.0"),
        (["object_counts"], {"bed": -1}, "below 0"),
        (["objects"], {}, "expected a JSON list"),
        (["objects", 0, "object_id"], 0, "object_id must be at least 1"),
        (["objects", 0, "object_id"], 2, r"object_id \[2\] is used twice"),
        (["objects", 0, "category"], None, "object 0: category"),
        (["objects", 0, "center"], [0, 0], r"got shape \(2,\), expected \(3,\)"),
        (["objects", 0, "size"], [1, 1, -1], "expected lengths of 0 or more"),
        (["objects", 0, "axes"], [[1, 0, 0], [0, 1, 0], [0, 1, 0]], "off orthonormal"),
        (["objects", 0, "yaw"], 0.3, "has both axes and yaw"),
        (["objects", 0, "room_id"], 9, r"room_id 9 is not one of \[1, 2\]"),
        (["objects", 0, "size"], ["a", 1, 1], "expected numbers"),
        (["rooms", 0, "polygon"], [[0, 0], [0, 1], [1, 1]], "counter-clockwise"),
        (["rooms", 0, "polygon"], [[0, 0], [1, 1]], "N >= 3"),
        (["rooms", 0, "height"], 0, "height is 0.0"),
        (["openings", 0, "kind"], "hole", "expected 'door' or 'window'"),
        (["openings", 0, "rooms"], [1, 7], "joins rooms"),
        (["openings", 0, "top"], -1, "must lie below top"),
    ],
)
def test_what_is_wrong_with_a_scene_is_said(path: list[Any], value: Any, message: str) -> None:
    with pytest.raises(SceneError, match=message):
        scene_json.scene_from_json(changed(path, value))


def test_a_wrong_scene_is_not_written_either() -> None:
    scene = flat(2)
    box = OrientedBox(np.zeros(3), np.ones(3), np.ones((3, 3)))
    with pytest.raises(SceneError, match="off orthonormal"):
        scene_json.scene_to_json(replace(scene, objects=(SceneObject(1, "bed", box),)))
    room = Room(1, "kitchen", np.zeros((3, 2)), 2.0)
    with pytest.raises(SceneError, match="finite and counter-clockwise"):
        scene_json.scene_to_json(replace(scene, objects=(), openings=(), rooms=(room,)))
    with pytest.raises(SceneError, match="must not be empty"):
        scene_json.validate(replace(scene, source=""))


def test_what_is_wrong_with_a_camera_is_said() -> None:
    camera, _ = walk(flat(1))
    pose = camera.camera_to_world.copy()
    pose[2, :3, :3] *= 1.1
    for wrong, message in (
        (replace(camera, width=0), "expected 1x1 or more"),
        (replace(camera, times=camera.times[::-1]), "rise strictly"),
        (replace(camera, times=camera.times[:3]), r"expected \(3, 3\) and \(3, 4, 4\)"),
        (replace(camera, camera_to_world=pose), "rotations and shifts"),
        (replace(camera, intrinsics=camera.intrinsics * np.nan), "not finite"),
    ):
        with pytest.raises(SceneError, match=message):
            scene_json.camera_to_json(wrong)


def test_counts_follow_the_objects() -> None:
    scene = flat(4)
    for category, count in scene_json.count_objects(scene.objects).items():
        assert count == sum(item.category == category for item in scene.objects)
