"""What a scene is: rooms, objects as oriented boxes, the parts they are drawn from, a camera's walk.

World axes: x and y span the floor, z points up, the floor of a scene lies at z = 0 unless a scan
says otherwise. Lengths are metres, angles radians, times seconds. Camera axes are OpenCV's: x right,
y down, z forward. Everything here is NumPy, float64, and read-only once made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SCENE_FORMAT = 1
"""Version of the JSON written for a scene; readers refuse a newer one."""


@dataclass(frozen=True, slots=True)
class OrientedBox:
    """A box anywhere in the world. `axes` rows are the box's own unit x, y, z axes."""

    center: Array  # [3] m
    size: Array  # [3] m, full lengths along the box's own axes
    axes: Array  # [3, 3], rows orthonormal


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One thing in a scene. `object_id` is unique in the scene and at least 1 (0 is the building)."""

    object_id: int
    category: str
    box: OrientedBox
    room_id: int | None = None
    color: str | None = None


@dataclass(frozen=True, slots=True)
class Room:
    """One room. `polygon` is its inner floor outline, counter-clockwise."""

    room_id: int
    function: str
    polygon: Array  # [N, 2] m
    height: float  # m


@dataclass(frozen=True, slots=True)
class Opening:
    """A door or window in a wall. `rooms` are the one or two rooms it joins (one: to outside)."""

    kind: str  # "door" | "window"
    rooms: tuple[int, ...]
    start: Array  # [2] m, one end on the floor plan
    end: Array  # [2] m, the other end
    bottom: float  # m above the floor
    top: float  # m above the floor


class PartKind(IntEnum):
    """The solids every mesh is made of; each is analytic, so a ray caster can check the renderer."""

    BOX = 0
    CYLINDER = 1  # upright along its own z; half_size x, y are the radii
    ELLIPSOID = 2


@dataclass(frozen=True, slots=True)
class Parts:
    """The drawable solids of a scene as arrays, P parts in all. The building's own parts have object_id 0."""

    kind: NDArray[np.uint8]  # [P] PartKind
    center: Array  # [P, 3] m
    half_size: Array  # [P, 3] m, half lengths along the part's own axes
    axes: Array  # [P, 3, 3], rows are the part's own unit axes in the world
    color: NDArray[np.float32]  # [P, 3] linear RGB in 0..1
    material: NDArray[np.uint8]  # [P] index of a procedural pattern, 0 = plain (see scenes.shading)
    object_id: NDArray[np.int32]  # [P]


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera's walk, T frames."""

    width: int  # pixels
    height: int  # pixels
    intrinsics: Array  # [3, 3], pixels
    camera_to_world: Array  # [T, 4, 4]
    times: Array  # [T] s from the start


@dataclass(frozen=True, slots=True)
class Scene:
    """A furnished place, from a seed or from a scan."""

    scene_id: str
    source: str  # "procedural" | "arkitscenes" | "scannet" | "scannetpp" | ...
    objects: tuple[SceneObject, ...]
    rooms: tuple[Room, ...] = ()
    openings: tuple[Opening, ...] = ()
    room_size: float | None = None  # m2, floor area of all rooms; None if unknown
    room_center: Array | None = None  # [3] m
    object_counts: dict[str, int] = field(
        default_factory=dict
    )  # every countable instance, boxed or not


@dataclass(frozen=True, slots=True)
class Visibility:
    """What the camera saw: visible pixels of each object in each frame."""

    object_ids: NDArray[np.int32]  # [O]
    pixels: NDArray[np.int32]  # [T, O]
    times: Array  # [T] s
