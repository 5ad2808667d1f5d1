"""A scene and a camera's walk as JSON: validated both ways, format number first.

`scene_to_json` and `scene_from_json` are inverse to the last bit: floats are written as Python
writes them. A reader refuses a newer format, unknown fields and anything `validate` refuses.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.boxes import polygon_area, yaw_axes
from spatial_ttt.scenes.fields import (
    load_json,
    mapping,
    number,
    required,
    sequence,
    text,
    vector,
    whole,
)
from spatial_ttt.scenes.scene import (
    SCENE_FORMAT,
    Array,
    Camera,
    Opening,
    OrientedBox,
    Room,
    Scene,
    SceneObject,
)

AXES_TOLERANCE = 1e-3
"""How far a box's axes may be from orthonormal; scans round theirs."""


# --- Validation ----------------------------------------------------------------------------------


def validate(scene: Scene) -> None:
    """Raise a SceneError that names the first thing wrong with a scene."""
    where = f"scene {scene.scene_id!r}"
    if not scene.scene_id or not scene.source:
        raise SceneError(f"{where}: scene_id and source must not be empty")
    rooms = _unique([room.room_id for room in scene.rooms], f"{where}: room_id")
    _unique([item.object_id for item in scene.objects], f"{where}: object_id")
    for item in scene.objects:
        place = f"{where}, object {item.object_id} ({item.category})"
        if item.object_id < 1:
            raise SceneError(f"{place}: object_id must be at least 1; 0 is the building")
        if not item.category:
            raise SceneError(f"{place}: category must not be empty")
        if item.room_id is not None and rooms and item.room_id not in rooms:
            raise SceneError(f"{place}: room_id {item.room_id} is not one of {sorted(rooms)}")
        validate_box(item.box, place)
    for room in scene.rooms:
        _validate_room(room, f"{where}, room {room.room_id}")
    for opening in scene.openings:
        _validate_opening(opening, rooms, f"{where}, {opening.kind}")
    if scene.room_size is not None and not 0 < scene.room_size < np.inf:
        raise SceneError(f"{where}: room_size is {scene.room_size}, expected m2 above 0 or None")
    for category, count in scene.object_counts.items():
        if count < 0:
            raise SceneError(f"{where}: object_counts[{category!r}] is {count}, below 0")


def validate_box(box: OrientedBox, where: str) -> None:
    """Raise a SceneError unless the box is finite, not inside out, and has orthonormal axes."""
    for name, array, shape in (
        ("center", box.center, (3,)),
        ("size", box.size, (3,)),
        ("axes", box.axes, (3, 3)),
    ):
        if array.shape != shape or not np.isfinite(array).all():
            raise SceneError(f"{where}: box {name} is {array.tolist()}, expected finite {shape}")
    if (box.size < 0).any():
        raise SceneError(f"{where}: box size is {box.size.tolist()}, expected lengths of 0 or more")
    error = float(np.abs(box.axes @ box.axes.T - np.eye(3)).max())
    if error > AXES_TOLERANCE:
        raise SceneError(f"{where}: box axes are off orthonormal by {error:.2g}; rows must be unit")


def _unique(ids: list[int], where: str) -> set[int]:
    seen = set(ids)
    if len(seen) != len(ids):
        twice = sorted(i for i in seen if ids.count(i) > 1)
        raise SceneError(f"{where} {twice} is used twice; each must be unique in its scene")
    return seen


def _validate_room(room: Room, where: str) -> None:
    if room.polygon.ndim != 2 or room.polygon.shape[1] != 2 or len(room.polygon) < 3:
        raise SceneError(f"{where}: polygon has shape {room.polygon.shape}, expected [N >= 3, 2]")
    if not np.isfinite(room.polygon).all() or polygon_area(room.polygon) <= 0:
        raise SceneError(f"{where}: polygon must be finite and counter-clockwise")
    if not 0 < room.height < np.inf:
        raise SceneError(f"{where}: height is {room.height}, expected metres above 0")


def _validate_opening(opening: Opening, rooms: set[int], where: str) -> None:
    if opening.kind not in ("door", "window"):
        raise SceneError(f"{where}: kind is {opening.kind!r}, expected 'door' or 'window'")
    if not 1 <= len(opening.rooms) <= 2 or not set(opening.rooms) <= rooms:
        raise SceneError(
            f"{where}: joins rooms {opening.rooms}, expected 1 or 2 of {sorted(rooms)}"
        )
    if not opening.bottom < opening.top:
        raise SceneError(f"{where}: bottom {opening.bottom} must lie below top {opening.top}")


# --- Scene ---------------------------------------------------------------------------------------


def scene_to_json(scene: Scene) -> dict[str, Any]:
    """A scene as plain JSON values."""
    validate(scene)
    return {
        "format": SCENE_FORMAT,
        "scene_id": scene.scene_id,
        "source": scene.source,
        "room_size": scene.room_size,
        "room_center": None if scene.room_center is None else scene.room_center.tolist(),
        "object_counts": dict(sorted(scene.object_counts.items())),
        "objects": [_object_to_json(item) for item in scene.objects],
        "rooms": [
            {
                "room_id": room.room_id,
                "function": room.function,
                "polygon": room.polygon.tolist(),
                "height": room.height,
            }
            for room in scene.rooms
        ],
        "openings": [
            {
                "kind": opening.kind,
                "rooms": list(opening.rooms),
                "start": opening.start.tolist(),
                "end": opening.end.tolist(),
                "bottom": opening.bottom,
                "top": opening.top,
            }
            for opening in scene.openings
        ],
    }


def _object_to_json(item: SceneObject) -> dict[str, Any]:
    return {
        "object_id": item.object_id,
        "category": item.category,
        "center": item.box.center.tolist(),
        "size": item.box.size.tolist(),
        "axes": item.box.axes.tolist(),
        "room_id": item.room_id,
        "color": item.color,
    }


_SCENE_FIELDS = {
    "format", "scene_id", "source", "room_size", "room_center", "object_counts",
    "objects", "rooms", "openings",
}  # fmt: skip
_OBJECT_FIELDS = {"object_id", "category", "center", "size", "axes", "yaw", "room_id", "color"}


def check_format(record: dict[str, Any], where: str) -> None:
    """Refuse a missing or newer format number."""
    version = whole(required(record, "format", where), f"{where}: format")
    if not 1 <= version <= SCENE_FORMAT:
        raise SceneError(
            f"{where}: format {version}, this version reads 1 to {SCENE_FORMAT}; update spatial-ttt"
        )


def _refuse_unknown(record: dict[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(set(record) - known)
    if unknown:
        raise SceneError(f"{where}: unknown fields {unknown}; known are {sorted(known)}")


def scene_from_json(record: Any) -> Scene:
    """A validated scene from what `scene_to_json`, or a user by docs/questions.md, wrote."""
    record = mapping(record, "scene")
    where = f"scene {record.get('scene_id', '?')!r}"
    check_format(record, where)
    _refuse_unknown(record, _SCENE_FIELDS, where)
    objects = tuple(
        _object_from_json(item, f"{where}, object {index}")
        for index, item in enumerate(sequence(record.get("objects", []), f"{where}: objects"))
    )
    counts = record.get("object_counts")
    room_size, room_center = record.get("room_size"), record.get("room_center")
    scene = Scene(
        scene_id=text(required(record, "scene_id", where), f"{where}: scene_id"),
        source=text(required(record, "source", where), f"{where}: source"),
        objects=objects,
        rooms=tuple(
            _room_from_json(item, f"{where}, room {index}")
            for index, item in enumerate(sequence(record.get("rooms", []), f"{where}: rooms"))
        ),
        openings=tuple(
            _opening_from_json(item, f"{where}, opening {index}")
            for index, item in enumerate(sequence(record.get("openings", []), f"{where}: openings"))
        ),
        room_size=None if room_size is None else number(room_size, f"{where}: room_size"),
        room_center=None
        if room_center is None
        else vector(room_center, (3,), f"{where}: room_center"),
        object_counts=count_objects(objects)
        if counts is None
        else {
            category: whole(count, f"{where}: object_counts[{category!r}]")
            for category, count in mapping(counts, f"{where}: object_counts").items()
        },
    )
    validate(scene)
    return scene


def count_objects(objects: tuple[SceneObject, ...]) -> dict[str, int]:
    """Instances per category, in order of first mention."""
    counts: dict[str, int] = {}
    for item in objects:
        counts[item.category] = counts.get(item.category, 0) + 1
    return counts


def _object_from_json(value: Any, where: str) -> SceneObject:
    record = mapping(value, where)
    _refuse_unknown(record, _OBJECT_FIELDS, where)
    room_id, color = record.get("room_id"), record.get("color")
    return SceneObject(
        object_id=whole(required(record, "object_id", where), f"{where}: object_id"),
        category=text(required(record, "category", where), f"{where}: category"),
        box=OrientedBox(
            center=vector(required(record, "center", where), (3,), f"{where}: center"),
            size=vector(required(record, "size", where), (3,), f"{where}: size"),
            axes=_axes_from_json(record, where),
        ),
        room_id=None if room_id is None else whole(room_id, f"{where}: room_id"),
        color=None if color is None else text(color, f"{where}: color"),
    )


def _axes_from_json(record: dict[str, Any], where: str) -> Array:
    """`axes`, or the axes of an upright box from `yaw` (radians); neither: along the world's."""
    if "axes" in record and "yaw" in record:
        raise SceneError(f"{where}: has both axes and yaw; give one")
    if "axes" in record:
        return vector(record["axes"], (3, 3), f"{where}: axes")
    yaw = number(record.get("yaw", 0.0), f"{where}: yaw")
    return vector(yaw_axes(yaw), (3, 3), where)


def _room_from_json(value: Any, where: str) -> Room:
    record = mapping(value, where)
    return Room(
        room_id=whole(required(record, "room_id", where), f"{where}: room_id"),
        function=text(required(record, "function", where), f"{where}: function"),
        polygon=vector(required(record, "polygon", where), (-1, 2), f"{where}: polygon"),
        height=number(required(record, "height", where), f"{where}: height"),
    )


def _opening_from_json(value: Any, where: str) -> Opening:
    record = mapping(value, where)
    rooms = sequence(required(record, "rooms", where), f"{where}: rooms")
    return Opening(
        kind=text(required(record, "kind", where), f"{where}: kind"),
        rooms=tuple(whole(room, f"{where}: rooms") for room in rooms),
        start=vector(required(record, "start", where), (2,), f"{where}: start"),
        end=vector(required(record, "end", where), (2,), f"{where}: end"),
        bottom=number(required(record, "bottom", where), f"{where}: bottom"),
        top=number(required(record, "top", where), f"{where}: top"),
    )


# --- Camera --------------------------------------------------------------------------------------


def validate_camera(camera: Camera) -> None:
    """Raise a SceneError that names the first thing wrong with a camera's walk."""
    if camera.width < 1 or camera.height < 1:
        raise SceneError(f"camera is {camera.width}x{camera.height} pixels, expected 1x1 or more")
    frames = len(camera.times)
    if camera.intrinsics.shape != (3, 3) or camera.camera_to_world.shape != (frames, 4, 4):
        raise SceneError(
            f"camera: intrinsics {camera.intrinsics.shape} and camera_to_world "
            f"{camera.camera_to_world.shape}, expected (3, 3) and ({frames}, 4, 4)"
        )
    for name in ("intrinsics", "camera_to_world", "times"):
        if not np.isfinite(getattr(camera, name)).all():
            raise SceneError(f"camera: {name} holds values that are not finite")
    if (np.diff(camera.times) <= 0).any():
        raise SceneError("camera: times must rise strictly from frame to frame")
    rotation = camera.camera_to_world[:, :3, :3]
    off = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max(initial=0.0)
    if off > AXES_TOLERANCE or (camera.camera_to_world[:, 3] != [0, 0, 0, 1]).any():
        raise SceneError("camera: camera_to_world must be rotations and shifts, last row 0 0 0 1")


def camera_to_json(camera: Camera) -> dict[str, Any]:
    """A camera's walk as plain JSON values."""
    validate_camera(camera)
    return {
        "format": SCENE_FORMAT,
        "width": camera.width,
        "height": camera.height,
        "intrinsics": camera.intrinsics.tolist(),
        "camera_to_world": camera.camera_to_world.tolist(),
        "times": camera.times.tolist(),
    }


def camera_from_json(record: Any) -> Camera:
    """A validated camera from what `camera_to_json` wrote."""
    record = mapping(record, "camera")
    check_format(record, "camera")
    camera = Camera(
        width=whole(required(record, "width", "camera"), "camera: width"),
        height=whole(required(record, "height", "camera"), "camera: height"),
        intrinsics=vector(required(record, "intrinsics", "camera"), (3, 3), "camera: intrinsics"),
        camera_to_world=vector(
            required(record, "camera_to_world", "camera"), (-1, 4, 4), "camera: camera_to_world"
        ),
        times=vector(required(record, "times", "camera"), (-1,), "camera: times"),
    )
    validate_camera(camera)
    return camera


# --- Files ---------------------------------------------------------------------------------------


def write_scene(scene: Scene, path: str | Path) -> None:
    """Write a scene as one line of JSON."""
    Path(path).write_text(json.dumps(scene_to_json(scene)) + "\n", encoding="utf-8")


def read_scene(path: str | Path) -> Scene:
    """Read a scene from a file of `write_scene`."""
    return scene_from_json(load_json(path))
