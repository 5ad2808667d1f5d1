"""Annotation files in every nesting met, with the liberties their fields take."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes import readers
from spatial_ttt.scenes.boxes import bounds, stack
from spatial_ttt.scenes.scene_json import scene_to_json
from tests.scenes.places import flat

REAL = Path(__file__).parents[2] / "../shared/real/vsi_bench_arkitscenes_meta.json"

BOX = {
    "centroid": [1, 2, "0.5"],
    "axesLengths": ["2.0", 1, 1],
    "normalizedAxes": [0, 1, 0, -1, 0, 0, 0, 0, 1],
    "min": [0.5, 1, 0],
    "max": [1.5, 3, 1],
}
RECORD: dict[str, Any] = {
    "room_size": "12.5",
    "room_center": [0, 0, 0],
    "object_counts": {"TV": "1", "trash_can": 2},
    "object_bbox": {"TV": [BOX], "trash_can": [BOX, {"min": [0, 0, 0], "max": [1, 2, 3]}]},
}


@pytest.mark.parametrize(
    ("content", "source"),
    [
        ({"scene0001_00": RECORD}, "scannet"),
        ({"scannet": {"scene0001_00": RECORD}}, "scannet"),
        ({"ScanNet++": {"scene0001_00": RECORD}}, "scannetpp"),
        ({"val": {"scannet_pp": {"scene0001_00": RECORD}}}, "scannetpp"),
        ({"scene0001_00": {**RECORD, "dataset": "ARKitScenes"}}, "arkitscenes"),
        ([{**RECORD, "scene_name": "scene0001_00", "dataset": "scannet"}], "scannet"),
        ({"scenes": [{**RECORD, "video_name": "x/scene0001_00.mp4"}]}, "scannet"),
        ({**RECORD, "scene_id": "scene0001_00"}, "scannet"),
    ],
)
def test_every_nesting_gives_the_same_scene(content: Any, source: str) -> None:
    (scene,) = readers.scenes_from_annotations(content)
    assert (scene.scene_id, scene.source) == ("scene0001_00", source)
    assert scene.room_size == 12.5
    assert scene.object_counts == {"tv": 1, "trash can": 2}
    assert [item.category for item in scene.objects] == ["tv", "trash can", "trash can"]
    assert [item.object_id for item in scene.objects] == [1, 2, 3]


def test_rows_of_axes_are_the_boxs_own() -> None:
    box = readers.box_from_json(BOX, "here")
    low, high = bounds(stack([box]))
    np.testing.assert_allclose(low[0], BOX["min"])
    np.testing.assert_allclose(high[0], BOX["max"])


def test_without_axes_min_and_max_decide() -> None:
    plain = {key: BOX[key] for key in ("centroid", "axesLengths", "min", "max")}
    for record in (plain, {**BOX, "normalizedAxes": [0] * 9}, {"obb": plain}):
        box = readers.box_from_json(record, "here")
        assert box.size.tolist() == [1, 2, 1] and box.center.tolist() == [1, 2, 0.5]
        assert (box.axes == np.eye(3)).all()
    bare = readers.box_from_json({"center": [0, 0, 0], "size": [1, 2, 3]}, "here")
    assert bare.size.tolist() == [1, 2, 3]


def test_nested_axes_and_lists_of_boxes_are_read() -> None:
    rows = {**BOX, "normalizedAxes": [[0, 1, 0], [-1, 0, 0], [0, 0, 1]], "label": "Bed"}
    (scene,) = readers.scenes_from_meta({"47333462": {"object_bbox": [rows, {**rows}]}})
    assert scene.source == "arkitscenes"
    assert scene.object_counts == {"bed": 2}
    (single,) = readers.scenes_from_meta({"0a5c013435": {"object_bbox": {"bed": BOX}}})
    assert single.source == "scannetpp" and len(single.objects) == 1


@pytest.mark.parametrize(
    "broken",
    [{"centroid": [0, 0, 0]}, {**BOX, "centroid": [float("nan")] * 3}, "box", 3,
     {**BOX, "axesLengths": [-1, 1, 1]}],
)  # fmt: skip
def test_an_unreadable_box_hides_its_category(broken: Any, caplog: Any) -> None:
    record = {"object_counts": {"bed": 2, "sofa": 1}, "object_bbox": {"bed": [BOX, broken]}}
    record["object_bbox"]["sofa"] = [BOX]
    with caplog.at_level(logging.WARNING):
        (scene,) = readers.scenes_from_meta({"s": record})
    assert [item.category for item in scene.objects] == ["sofa"]
    assert scene.object_counts["bed"] == 2
    assert "left out all boxes" in caplog.text and "bed" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"s": {"room_size": "big"}}, "room_size: got 'big'"),
        ({"s": {"object_counts": {"bed": 1.5}}}, "whole number"),
        ({"s": {"object_bbox": 3}}, "expected a JSON object"),
        ({"s": {"object_bbox": [{"min": [0, 0, 0]}]}}, "names no category"),
        ([{"room_size": 3}], "names no scene"),
    ],
)
def test_what_cannot_be_read_is_said(content: Any, message: str) -> None:
    with pytest.raises(SceneError, match=message):
        readers.scenes_from_annotations(content)


def test_files_of_every_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(scene_to_json(flat(1))))
    assert readers.read_scenes(path)[0].scene_id == "flat0001"
    path.write_text("\n".join(json.dumps(scene_to_json(flat(n))) for n in range(3)))
    assert [scene.scene_id for scene in readers.read_scenes(path)][2] == "flat0002"
    path.write_text(json.dumps({"x": {"objects_info": []}}))
    assert readers.read_scenes(path)[0].source == "sceneverse"
    path.write_text("{}")
    with pytest.raises(SceneError, match="holds no scene"):
        readers.read_scenes(path)
    path.write_text('{"s": {"room_size": "x"}}')
    with pytest.raises(SceneError, match=r"a\.json: scene s: room_size"):
        readers.read_scenes(path)


@pytest.mark.parametrize(
    ("raw", "name"),
    [("ScanNet", "scannet"), ("scannet++", "scannetpp"), ("ScanNetPP", "scannetpp"),
     ("ARKitScenes", "arkitscenes"), ("arkitscenes_val", "arkitscenes"), ("HM3D", "hm3d")],
)  # fmt: skip
def test_dataset_names(raw: str, name: str) -> None:
    assert readers.dataset_name(raw) == name


def test_category_names() -> None:
    assert readers.category_name(" Trash_Can ") == "trash can"
    assert readers.category_name("coffee-table") == "coffee table"


@pytest.mark.skipif(not REAL.exists(), reason="the benchmark's annotations are not here")
def test_the_real_annotations() -> None:
    scenes = readers.read_scenes(REAL)
    raw = json.loads(REAL.read_text())
    assert len(scenes) == len(raw) == 150
    for scene in scenes:
        record = raw[scene.scene_id]
        assert scene.source == "arkitscenes"
        assert scene.object_counts == record["object_counts"]
        boxes = [box for group in record["object_bbox"].values() for box in group]
        low, high = bounds(stack(scene.objects))
        np.testing.assert_allclose(low, np.reshape([b["min"] for b in boxes], (-1, 3)), atol=1e-6)
        np.testing.assert_allclose(high, np.reshape([b["max"] for b in boxes], (-1, 3)), atol=1e-6)
