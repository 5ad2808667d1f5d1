"""What may be asked about: the objects a camera clearly saw until a moment.

An object is seen once it covers a clear share of one frame. A category with an instance that was
only glimpsed (more than a trace, less than clear) is ambiguous, and nothing is asked about it: the
viewer cannot know whether it counts. Instances never seen do not exist for the question.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.boxes import Bools, points_in_polygon
from spatial_ttt.scenes.rules import Inventory, inventory
from spatial_ttt.scenes.scene import Camera, Scene, SceneObject, Visibility

UNASKED = frozenset(
    {"wall", "floor", "ceiling", "object", "other", "unknown", "item", "structure", "doorframe"}
)
"""Structural and nameless classes: never part of a question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRule:
    """When an object counts as seen, as shares of a frame's pixels."""

    clear_share: float = 0.002
    """From here on an object is seen clearly."""
    trace_share: float = 0.0001
    """Up to here it is not seen at all."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a viewer knows of a scene at `until_s`: the ground on which questions stand."""

    scene: Scene
    objects: tuple[SceneObject, ...]  # seen, unambiguous, in the order of stock.boxes
    stock: Inventory
    first_trace: dict[str, float]  # s, category -> the earliest trace of an instance
    first_clear: dict[str, float]  # s, category -> the earliest clear view of an instance
    until_s: float
    rooms_entered: tuple[int, ...]  # room ids in the order the camera first stood in them

    @property
    def saw_every_room(self) -> bool:
        """Whether the camera stood in each room; a scene without a floor plan counts as one."""
        return len(self.rooms_entered) == len(self.scene.rooms)


def observe(
    scene: Scene,
    visibility: Visibility,
    camera: Camera,
    until_s: float | None = None,
    rule: SeenRule | None = None,
) -> Observation:
    """What the camera saw of the scene in the frames up to and including `until_s` seconds."""
    rule = rule or SeenRule()
    if visibility.pixels.shape != (len(visibility.times), len(visibility.object_ids)):
        raise SceneError(
            f"visibility: pixels have shape {visibility.pixels.shape}, expected "
            f"{(len(visibility.times), len(visibility.object_ids))} (frames, objects)"
        )
    frames = len(visibility.times)
    if until_s is not None:
        frames = int(np.searchsorted(visibility.times, until_s, side="right"))
    if frames == 0:
        raise SceneError(f"no frame was seen by {until_s} s; the first is at a later time")
    area = camera.width * camera.height
    pixels = visibility.pixels[:frames]
    clear: Bools = np.asarray(pixels >= max(rule.clear_share * area, 1.0))  # [T, O]
    trace: Bools = np.asarray(pixels > rule.trace_share * area)
    column = {int(object_id): n for n, object_id in enumerate(visibility.object_ids)}
    seen, glimpsed = np.asarray(clear.any(0)), np.asarray(trace.any(0))
    times = visibility.times[:frames]
    kept: list[SceneObject] = []
    ambiguous = set(UNASKED)
    first_trace: dict[str, float] = {}
    first_clear: dict[str, float] = {}
    for item in scene.objects:
        n = column.get(item.object_id)
        if n is None or not glimpsed[n]:
            continue
        if not seen[n]:
            ambiguous.add(item.category)
            continue
        kept.append(item)
        _note_first(first_trace, item.category, float(times[trace[:, n].argmax()]))
        _note_first(first_clear, item.category, float(times[clear[:, n].argmax()]))
    return _observation(
        scene,
        tuple(item for item in kept if item.category not in ambiguous),
        (first_trace, first_clear),
        float(times[-1]) if until_s is None else until_s,
        _rooms_entered(scene, camera, float(times[-1])),
    )


def observe_all(scene: Scene) -> Observation:
    """Everything in a scene counts as seen: for annotations of a scan without its camera."""
    objects = tuple(item for item in scene.objects if item.category not in UNASKED)
    # A category with more counted instances than boxes is no longer one whose boxes we know.
    boxed: dict[str, int] = {}
    for item in objects:
        boxed[item.category] = boxed.get(item.category, 0) + 1
    known = {name for name, n in boxed.items() if scene.object_counts.get(name, n) == n}
    kept = tuple(item for item in objects if item.category in known)
    every_room = tuple(room.room_id for room in scene.rooms)
    return _observation(scene, kept, ({}, {}), 0.0, every_room)


def _observation(
    scene: Scene,
    objects: tuple[SceneObject, ...],
    first: tuple[dict[str, float], dict[str, float]],
    until_s: float,
    rooms_entered: tuple[int, ...],
) -> Observation:
    stock = inventory(objects)
    first_trace, first_clear = first
    return Observation(
        scene,
        objects,
        stock,
        {name: first_trace[name] for name in stock.members if name in first_trace},
        {name: first_clear[name] for name in stock.members if name in first_clear},
        until_s,
        rooms_entered,
    )


def _note_first(times: dict[str, float], category: str, time: float) -> None:
    times[category] = min(time, times.get(category, np.inf))


def _rooms_entered(scene: Scene, camera: Camera, until_s: float) -> tuple[int, ...]:
    walked = camera.camera_to_world[camera.times <= until_s + 1e-9, :2, 3]
    first: list[tuple[int, int]] = []
    for room in scene.rooms:
        inside = points_in_polygon(walked, room.polygon)
        if inside.any():
            first.append((int(inside.argmax()), room.room_id))
    return tuple(room_id for _, room_id in sorted(first))
