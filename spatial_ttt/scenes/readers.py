"""Scenes from annotations of real scans: VSI-Bench meta-info, scene graphs, and our own JSON.

`read_scenes(path)` looks at the file and picks the reader. VSI-Bench meta-info may be nested as
scene -> record or dataset -> scene -> record, or be a list of records that name their scene. A box
that cannot be read takes its whole category out of `objects` (never out of `object_counts`): a
category must not look unique because one of its boxes was unreadable.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.fields import load_json, mapping, number, vector, whole
from spatial_ttt.scenes.graphs import is_graph, scenes_from_graphs
from spatial_ttt.scenes.scene import Array, OrientedBox, Scene, SceneObject
from spatial_ttt.scenes.scene_json import AXES_TOLERANCE, count_objects, scene_from_json, validate

logger = logging.getLogger(__name__)

_SCENE_KEYS = ("scene_name", "scene_id", "scene", "scan", "video_name", "video_id", "name", "id")
_RECORD_KEYS = {"object_bbox", "object_bboxes", "object_counts", "room_size"}
_CENTER_KEYS = ("centroid", "center", "centre", "position")
_SIZE_KEYS = ("axesLengths", "axes_lengths", "size", "extent", "dimensions")
_AXES_KEYS = ("normalizedAxes", "normalized_axes", "axes")
_CATEGORY_KEYS = ("category", "label", "class", "name")


def category_name(raw: str) -> str:
    """One spelling of a category: lower case, single spaces, no underscores or hyphens."""
    return re.sub(r"[\s_\-]+", " ", raw).strip().lower()


def dataset_name(raw: str) -> str:
    """One spelling of a dataset: 'ScanNet++' and 'scannet_pp' are scannetpp."""
    plain = re.sub(r"[^a-z0-9+]", "", raw.lower()).replace("++", "pp").replace("plusplus", "pp")
    for known in ("scannetpp", "scannet", "arkitscenes", "3rscan"):
        if plain.startswith(known) or (known == "arkitscenes" and plain.startswith("arkit")):
            return known
    return plain


def dataset_of_scene(scene_id: str) -> str:
    """The dataset a scene's name belongs to by its form, or 'unknown'."""
    if re.fullmatch(r"scene\d{4}_\d\d", scene_id):
        return "scannet"
    if re.fullmatch(r"\d{8}", scene_id):
        return "arkitscenes"
    return "scannetpp" if re.fullmatch(r"[0-9a-f]{10}", scene_id) else "unknown"


# --- Any file ------------------------------------------------------------------------------------


def read_scenes(path: str | Path) -> list[Scene]:
    """Every scene in an annotation file, whichever of the known formats it has."""
    content = load_json(path)
    try:
        scenes = scenes_from_annotations(content)
    except SceneError as error:
        raise SceneError(f"{path}: {error}") from error
    if not scenes:
        raise SceneError(f"{path} holds no scene; see docs/questions.md for the formats read")
    return scenes


def scenes_from_annotations(content: Any) -> list[Scene]:
    """Scenes from parsed JSON: our own format, a scene graph, or VSI-Bench meta-info."""
    first = content[0] if isinstance(content, list) and content else content
    if isinstance(first, dict) and "format" in first and "objects" in first:
        return [scene_from_json(item) for item in (content if content is not first else [first])]
    if is_graph(content):
        return scenes_from_graphs(content)
    return scenes_from_meta(content)


# --- VSI-Bench meta-info -------------------------------------------------------------------------


def scenes_from_meta(content: Any) -> list[Scene]:
    """Scenes of VSI-Bench meta-info, in the file's order; a repeated scene must not differ."""
    scenes: dict[tuple[str, str], Scene] = {}
    for keys, record in _records(content, ()):
        scene = _scene_from_record(record, keys)
        scenes[scene.source, scene.scene_id] = scene
    return list(scenes.values())


def _records(node: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Walk nested objects and lists down to the records, with the keys passed on the way."""
    if isinstance(node, list):
        for item in node:
            yield from _records(item, keys)
    elif isinstance(node, dict):
        if _RECORD_KEYS & node.keys():
            yield keys, node
        else:
            for key, item in node.items():
                yield from _records(item, (*keys, str(key)))


def _scene_from_record(record: dict[str, Any], keys: tuple[str, ...]) -> Scene:
    names = [str(record[key]) for key in _SCENE_KEYS if isinstance(record.get(key), str | int)]
    scene_id = scene_name(names[0] if names else keys[-1] if keys else "")
    if not scene_id:
        raise SceneError(f"a record names no scene; it has the fields {sorted(record)}")
    where = f"scene {scene_id}"
    objects = tuple(_objects(_boxes_by_category(record, where), where))
    counts = _counts(record, where) or count_objects(objects)
    room_size = record.get("room_size")
    center = record.get("room_center")
    scene = Scene(
        scene_id=scene_id,
        source=_source(record, keys, scene_id),
        objects=objects,
        room_size=None if room_size is None else number(room_size, f"{where}: room_size"),
        room_center=None if center is None else vector(center, (3,), f"{where}: room_center"),
        object_counts=counts,
    )
    validate(scene)
    return scene


def scene_name(raw: str) -> str:
    """The bare scene name of a name, file name or path: 'a/scene0001_00.mp4' is scene0001_00."""
    return re.sub(r"\.(mp4|json|avi|mov|mkv)$", "", raw.strip().split("/")[-1])


def _source(record: dict[str, Any], keys: tuple[str, ...], scene_id: str) -> str:
    named = record.get("dataset") or record.get("source")
    if isinstance(named, str):
        return dataset_name(named)
    known = {"scannetpp", "scannet", "arkitscenes", "3rscan"}
    parents = [dataset_name(key) for key in reversed(keys) if scene_name(key) != scene_id]
    return next((name for name in parents if name in known), dataset_of_scene(scene_id))


def _counts(record: dict[str, Any], where: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for raw, value in mapping(record.get("object_counts") or {}, f"{where}: object_counts").items():
        category = category_name(raw)
        counts[category] = counts.get(category, 0) + whole(value, f"{where}: count of {raw!r}")
    return counts


def _boxes_by_category(record: dict[str, Any], where: str) -> dict[str, list[Any]]:
    """Raw boxes of each category, from a mapping or from a list whose items name their category."""
    raw = record.get("object_bbox", record.get("object_bboxes"))
    grouped: dict[str, list[Any]] = {}
    pairs: Iterable[tuple[Any, Any]]
    if raw is None:
        pairs = ()
    elif isinstance(raw, list):
        pairs = ((_first(mapping(box, where), _CATEGORY_KEYS), box) for box in raw)
    else:
        pairs = mapping(raw, f"{where}: object_bbox").items()
    for name, value in pairs:
        if not isinstance(name, str) or not name.strip():
            raise SceneError(f"{where}: a box in object_bbox names no category")
        boxes = value if isinstance(value, list) else [value]
        grouped.setdefault(category_name(name), []).extend(boxes)
    return grouped


def _objects(grouped: dict[str, list[Any]], where: str) -> Iterator[SceneObject]:
    object_id = 0
    for category, raw_boxes in grouped.items():
        try:
            boxes = [box_from_json(raw, f"{where}, {category}") for raw in raw_boxes]
        except SceneError as error:
            logger.warning("left out all boxes of a category: %s", error)
            continue
        for box in boxes:
            object_id += 1
            yield SceneObject(object_id=object_id, category=category, box=box)


# --- One box -------------------------------------------------------------------------------------


def _first(record: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)


def box_from_json(value: Any, where: str) -> OrientedBox:
    """A box from centroid, axesLengths and row-major normalizedAxes, or from min and max alone."""
    record = mapping(value, where)
    if isinstance(record.get("obb"), dict):
        record = record["obb"]
    center, size = _first(record, _CENTER_KEYS), _first(record, _SIZE_KEYS)
    axes = _first(record, _AXES_KEYS)
    if center is not None and size is not None and axes is not None:
        rows = vector(axes, (3, 3), f"{where}: normalizedAxes")
        if np.abs(rows @ rows.T - np.eye(3)).max() <= AXES_TOLERANCE:
            return _box(center, size, rows, where)
    identity = vector(np.eye(3), (3, 3), where)
    if record.get("min") is not None and record.get("max") is not None:
        low = vector(record["min"], (3,), f"{where}: min")
        high = vector(record["max"], (3,), f"{where}: max")
        return _box((low + high) / 2, high - low, identity, where)
    if center is not None and size is not None and axes is None:
        return _box(center, size, identity, where)
    raise SceneError(
        f"{where}: a box has {sorted(record)}; expected centroid, axesLengths and orthonormal "
        f"normalizedAxes, or min and max"
    )


def _box(center: Any, size: Any, axes: Array, where: str) -> OrientedBox:
    lengths = vector(size, (3,), f"{where}: size")
    if (lengths < 0).any():
        raise SceneError(f"{where}: box lengths are {lengths.tolist()}, expected 0 or more")
    return OrientedBox(vector(center, (3,), f"{where}: centroid"), lengths, axes)
