"""Scene graphs of 3RScan and SceneVerse, small ones written by hand in their published forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes import graphs

EYE = [1, 0, 0, 0, 1, 0, 0, 0, 1]
RSCAN: dict[str, Any] = {
    "scans": [
        {
            "scan": "aa-bb",
            "objects": [
                {"id": "1", "label": "floor", "global_id": "5"},
                {"id": "2", "label": "Coffee  table", "attributes": {"color": ["brown", "dark"]}},
                {"id": "3", "label": "chair", "attributes": {}},
                {"id": "4", "label": "chair"},
            ],
        }
    ]
}
RSCAN_RELATIONS: dict[str, Any] = {
    "scans": [{"scan": "aa-bb", "relationships": [[2, 1, 14, "standing on"], [2, 3, 4, "left"]]}]
}
SEMSEG: dict[str, Any] = {
    "scan_id": "aa-bb",
    "segGroups": [
        {"id": n, "objectId": n, "label": label,
         "obb": {"centroid": [n, 0, 0], "axesLengths": [1, 1, 1], "normalizedAxes": EYE}}
        for n, label in ((1, "floor"), (2, "coffee table"), (3, "chair"))
    ],
}  # fmt: skip
SCENEVERSE = {
    "scene0000_00": {
        "objects_info": [
            {"id": 4, "label": "bed", "position": [1, 1, 0.3], "size": [2, 1.5, 0.6]},
            {"id": 5, "label": "pillow", "position": [1, 1, 0.7], "size": [0.4, 0.4, 0.2]},
            {"id": 6, "label": "wall", "position": [0, 0, 1], "size": [5, 0.1, 2]},
        ],
        "inst_to_label": {"4": "bed"},
    }
}
SCENEVERSE_RELATIONS = {
    "scene0000_00": {"relationships": [[4, 5, "support"], [-2, 4, "embedded"]], "scan": "x"}
}


def test_3rscan_objects_get_their_boxes_from_the_segments() -> None:
    (graph,) = graphs.graphs_from_json(RSCAN, RSCAN_RELATIONS, {"aa-bb": SEMSEG})
    scene = graph.scene
    assert (scene.scene_id, scene.source) == ("aa-bb", "3rscan")
    assert scene.object_counts == {"coffee table": 1, "chair": 2}, "the floor is no object"
    assert [(item.object_id, item.category) for item in scene.objects] == [
        (2, "coffee table"),
        (3, "chair"),
    ], "the second chair has no box: it is counted, not placed"
    assert scene.objects[0].color == "brown"
    assert graph.relations == (graphs.Relation(2, "left", 3),), "the floor's relation goes with it"


def test_sceneverse_objects_carry_axis_aligned_boxes() -> None:
    (graph,) = graphs.graphs_from_json(SCENEVERSE, SCENEVERSE_RELATIONS)
    assert graph.scene.source == "sceneverse"
    assert graph.scene.objects[0].box.size.tolist() == [2, 1.5, 0.6]
    assert graph.relations == (graphs.Relation(4, "support", 5),)


def test_files(tmp_path: Path) -> None:
    for name, content in (("o", RSCAN), ("r", RSCAN_RELATIONS), ("s", SEMSEG)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (graph,) = graphs.read_graphs(
        tmp_path / "o.json", tmp_path / "r.json", {"aa-bb": tmp_path / "s.json"}
    )
    assert len(graph.scene.objects) == 2 and len(graph.relations) == 1
    (bare,) = graphs.read_graphs(tmp_path / "o.json")
    assert bare.scene.objects == () and bare.scene.object_counts["chair"] == 2
    (alone,) = graphs.read_graphs(tmp_path / "s.json")
    assert len(alone.scene.objects) == 2


def test_what_counts_as_a_graph() -> None:
    assert all(graphs.is_graph(content) for content in (RSCAN, SEMSEG, SCENEVERSE))
    assert not graphs.is_graph({"s": {"room_size": 1}}) and not graphs.is_graph([RSCAN])


@pytest.mark.parametrize(
    ("objects", "relations", "message"),
    [
        ([], None, "expected a JSON object"),
        ({"scans": [{"objects": []}]}, None, "non-empty text"),
        ({"scans": [{"scan": "x"}]}, None, "expected a JSON list"),
        ({"scans": [{"scan": "x", "objects": [{"id": 1}]}]}, None, "label"),
        ({"scans": [{"scan": "x", "objects": [{"label": "bed"}]}]}, None, "object id"),
        (RSCAN, {"scans": [{"scan": "aa-bb", "relationships": [[1, 2]]}]}, "from id, to id"),
    ],
)
def test_damaged_graphs_are_refused(objects: Any, relations: Any, message: str) -> None:
    with pytest.raises(SceneError, match=message):
        graphs.graphs_from_json(objects, relations)
