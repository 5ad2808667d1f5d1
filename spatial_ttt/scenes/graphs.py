"""Scene graphs as 3RScan (3DSSG) and SceneVerse write them: objects.json and relationships.json.

3RScan: {"scans": [{"scan", "objects": [{"id", "label", "attributes", ...}]}]}, boxes apart in
semseg.v2.json (segGroups with an obb). SceneVerse: {scan: {"objects_info": [{"id", "label",
"position", "size"}]}}. Relationships in both: [from_id, to_id, ..., name].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.fields import load_json, mapping, sequence, text, vector, whole
from spatial_ttt.scenes.scene import OrientedBox, Scene, SceneObject
from spatial_ttt.scenes.scene_json import count_objects, validate

_STRUCTURE = frozenset(
    {"wall", "floor", "ceiling", "object", "item", "doorframe", "remove", "unknown"}
)
"""Labels that name the building or nothing in particular: no question can be asked about them."""


@dataclass(frozen=True, slots=True)
class Relation:
    """`subject` stands in relation `name` to `target` (object ids)."""

    subject: int
    name: str
    target: int


@dataclass(frozen=True, slots=True)
class SceneGraph:
    """A scene with the relations its annotators gave."""

    scene: Scene
    relations: tuple[Relation, ...]


def is_graph(content: Any) -> bool:
    """Whether parsed JSON looks like an objects.json or semseg.v2.json of a scene graph."""
    if not isinstance(content, dict):
        return False
    if "scans" in content or "segGroups" in content:
        return True
    return any(isinstance(item, dict) and "objects_info" in item for item in content.values())


def scenes_from_graphs(content: Any) -> list[Scene]:
    """Scenes of an objects.json alone, boxes where it has them."""
    return [graph.scene for graph in graphs_from_json(content)]


def read_graphs(
    objects: str | Path,
    relationships: str | Path | None = None,
    segments: dict[str, str | Path] | None = None,
) -> list[SceneGraph]:
    """Scene graphs of files. `segments` maps a 3RScan scan id to its semseg.v2.json."""
    related = None if relationships is None else load_json(relationships)
    boxes = {scan: load_json(path) for scan, path in (segments or {}).items()}
    return graphs_from_json(load_json(objects), related, boxes)


def graphs_from_json(
    objects: Any, relationships: Any = None, segments: dict[str, Any] | None = None
) -> list[SceneGraph]:
    """Scene graphs of parsed JSON; relations to objects that were left out are left out too."""
    related = dict(_relations(relationships)) if relationships is not None else {}
    graphs = []
    for scan, source, records in _scans(objects):
        scene = _scene(scan, source, records, _boxes((segments or {}).get(scan)))
        known = {item.object_id for item in scene.objects}
        relations = tuple(
            relation
            for relation in related.get(scan, ())
            if relation.subject in known and relation.target in known
        )
        graphs.append(SceneGraph(scene, relations))
    return graphs


def _scans(content: Any) -> Iterator[tuple[str, str, list[Any]]]:
    """Scan id, source and raw objects of every scan."""
    root = mapping(content, "objects.json")
    if "segGroups" in root:
        scan = text(root.get("scan_id", root.get("scanId")), "semseg: scan_id")
        yield scan, "3rscan", sequence(root["segGroups"], f"scan {scan}: segGroups")
    elif "scans" in root:
        for item in sequence(root["scans"], "objects.json: scans"):
            record = mapping(item, "objects.json: scan")
            scan = text(record.get("scan"), "objects.json: scan")
            yield scan, "3rscan", sequence(record.get("objects"), f"scan {scan}: objects")
    else:
        for scan, item in root.items():
            record = mapping(item, f"scan {scan}")
            yield scan, "sceneverse", sequence(record.get("objects_info"), f"scan {scan}: objects")


def _relations(content: Any) -> Iterator[tuple[str, tuple[Relation, ...]]]:
    root = mapping(content, "relationships.json")
    if "scans" in root:
        scans = [mapping(item, "relationships.json: scan") for item in root["scans"]]
    else:
        scans = [{**mapping(item, f"scan {scan}"), "scan": scan} for scan, item in root.items()]
    for record in scans:
        scan = text(record.get("scan"), "relationships.json: scan")
        rows = sequence(record.get("relationships"), f"scan {scan}: relationships")
        yield scan, tuple(_relation(row, f"scan {scan}: relationship") for row in rows)


def _relation(row: Any, where: str) -> Relation:
    cells = sequence(row, where)
    if len(cells) < 3:
        raise SceneError(f"{where}: got {cells}, expected [from id, to id, ..., name]")
    return Relation(whole(cells[0], where), text(cells[-1], where), whole(cells[1], where))


def _boxes(semseg: Any) -> dict[int, OrientedBox]:
    """Boxes by object id from a semseg.v2.json."""
    if semseg is None:
        return {}
    groups = sequence(mapping(semseg, "semseg").get("segGroups"), "semseg: segGroups")
    return {
        whole(group.get("objectId", group.get("id")), "semseg: objectId"): box
        for group in groups
        if (box := _box(group, "semseg")) is not None
    }


def _box(record: dict[str, Any], where: str) -> OrientedBox | None:
    """The box of a raw object, or None if it has none."""
    if isinstance(record.get("obb"), dict):
        obb = record["obb"]
        return OrientedBox(
            vector(obb.get("centroid"), (3,), f"{where}: centroid"),
            vector(obb.get("axesLengths"), (3,), f"{where}: axesLengths"),
            vector(obb.get("normalizedAxes"), (3, 3), f"{where}: normalizedAxes"),
        )
    if record.get("position") is not None and record.get("size") is not None:
        return OrientedBox(
            vector(record["position"], (3,), f"{where}: position"),
            vector(record["size"], (3,), f"{where}: size"),
            vector(np.eye(3), (3, 3), where),
        )
    return None


def _scene(scan: str, source: str, records: list[Any], boxes: dict[int, OrientedBox]) -> Scene:
    """A scene of a graph's objects: all are counted, those with a box become objects."""
    objects: list[SceneObject] = []
    counts: dict[str, int] = {}
    for raw in records:
        record = mapping(raw, f"scan {scan}: object")
        category = " ".join(text(record.get("label"), f"scan {scan}: label").lower().split())
        if category in _STRUCTURE:
            continue
        counts[category] = counts.get(category, 0) + 1
        object_id = whole(record.get("id", record.get("objectId")), f"scan {scan}: object id")
        box = boxes.get(object_id) or _box(record, f"scan {scan}, object {object_id}")
        if box is not None and object_id >= 1:
            objects.append(SceneObject(object_id, category, box, color=_color(record)))
    scene = Scene(scan, source, tuple(objects), object_counts=counts or count_objects(()))
    validate(scene)
    return scene


def _color(record: dict[str, Any]) -> str | None:
    attributes = record.get("attributes")
    colors = attributes.get("color") if isinstance(attributes, dict) else None
    return str(colors[0]) if isinstance(colors, list) and colors else None
