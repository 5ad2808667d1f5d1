"""Furnished homes from seeds: the scene (rooms, doors, oriented boxes) and the solids to draw.

make_home(seed) = floor plan -> building -> furniture room by room -> arrays. The same seed gives the
same bytes on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.building import build
from spatial_ttt.scenes.catalogue.mesh import Solid, cosine_sine
from spatial_ttt.scenes.dice import Dice
from spatial_ttt.scenes.floorplan import FloorPlan, make_plan
from spatial_ttt.scenes.furnish import Furnisher
from spatial_ttt.scenes.program import MAX_ROOMS
from spatial_ttt.scenes.rooms import furnish_room
from spatial_ttt.scenes.scene import Opening, OrientedBox, Parts, Room, Scene, SceneObject
from spatial_ttt.scenes.space import Placed, RoomSpace

_ROOM_WEIGHTS = ((1, 2.0), (2, 1.5), (3, 2.0), (4, 2.5), (5, 2.0), (6, 1.2), (7, 0.8), (8, 0.6))
_SPLIT_SPAN = 1 << 40
_PLANS = 50
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Home:
    """A furnished home. `supports[i]` holds up `scene.objects[i]`: an object_id, or 0 the floor,
    -1 a wall, -2 the ceiling. `free` are the walkable cells of each room."""

    seed: int
    scene: Scene
    parts: Parts
    supports: NDArray[np.int32]  # [O]
    plan: FloorPlan
    spaces: tuple[RoomSpace, ...]
    placed: tuple[Placed, ...]


def home_seed(split: str, index: int) -> int:
    """The seed of a split's home number `index`; seeds of different splits never meet."""
    if split not in SPLITS:
        raise SceneError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if not 0 <= index < _SPLIT_SPAN:
        raise SceneError(f"a split holds homes 0 to {_SPLIT_SPAN - 1}, got {index}")
    return SPLITS.index(split) * _SPLIT_SPAN + index


def split_of(seed: int) -> str:
    """The split a home's seed belongs to."""
    if not 0 <= seed < len(SPLITS) * _SPLIT_SPAN:
        raise SceneError(f"home seeds run from 0 to {len(SPLITS) * _SPLIT_SPAN - 1}, got {seed}")
    return SPLITS[seed // _SPLIT_SPAN]


def make_home(
    seed: int,
    *,
    num_rooms: int | None = None,
    functions: tuple[str, ...] | None = None,
    keep: Callable[[list[Placed]], list[Placed]] | None = None,
) -> Home:
    """A home of 1 to 8 rooms; `functions` names the rooms instead (the first is the hub).

    `keep` chooses what stays of all that was placed; the walkable cells are those of all of it.
    """
    if seed < 0:
        raise SceneError(f"a home's seed must be at least 0, got {seed}")
    if num_rooms is not None and not 1 <= num_rooms <= MAX_ROOMS:
        raise SceneError(f"num_rooms must be 1 to {MAX_ROOMS}, got {num_rooms}")
    dice = Dice(seed, 1)
    rolled = dice.weighted(_ROOM_WEIGHTS)
    placed: list[Placed] = []
    for _ in range(_PLANS):
        plan = make_plan(dice, num_rooms or rolled, functions)
        spaces = tuple(RoomSpace(plan, room) for room in plan.rooms)
        if all(space.is_walkable(space.free) for space in spaces):
            break
    else:
        raise SceneError(f"seed {seed} gave no home one can walk through; take another seed")
    # Large homes get fewer small things, so that their parts stay few enough to draw fast.
    plenty = min(1.0, 4.6 / len(spaces))
    for space in spaces:
        furnish_room(Furnisher(space, Dice(seed, 2, space.room.room_id), placed, plenty))
    return assemble(seed, plan, spaces, keep(placed) if keep else placed)


def assemble(
    seed: int, plan: FloorPlan, spaces: tuple[RoomSpace, ...], placed: list[Placed]
) -> Home:
    """The border types from a plan and what was placed in it."""
    objects = tuple(_object(index + 1, thing) for index, thing in enumerate(placed))
    counts: dict[str, int] = {}
    for thing in objects:
        counts[thing.category] = counts.get(thing.category, 0) + 1
    rooms = tuple(
        Room(room.room_id, room.function, np.array(room.polygon, dtype=np.float64), plan.height)
        for room in plan.rooms
    )
    x = [p for room in plan.rooms for p in (room.bounds.x0, room.bounds.x1)]
    y = [p for room in plan.rooms for p in (room.bounds.y0, room.bounds.y1)]
    center = ((min(x) + max(x)) / 2, (min(y) + max(y)) / 2, plan.height / 2)
    scene = Scene(
        scene_id=f"home-{seed:013d}",
        source="procedural",
        objects=objects,
        rooms=rooms,
        openings=_openings(plan),
        room_size=round(sum(room.area for room in plan.rooms), 6),
        room_center=np.array(center, dtype=np.float64),
        object_counts=dict(sorted(counts.items())),
    )
    supports = np.array([p.support + 1 for p in placed], dtype=np.int32)
    parts = pack_parts(build(Dice(seed, 3), plan), placed)
    return Home(seed, scene, parts, supports, plan, spaces, tuple(placed))


def _object(object_id: int, thing: Placed) -> SceneObject:
    c, s = cosine_sine(thing.yaw)
    size = thing.furniture.size
    axes = np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]], dtype=np.float64)
    box = OrientedBox(
        np.array([thing.x, thing.y, thing.z + size[2] / 2], dtype=np.float64),
        np.array(size, dtype=np.float64),
        axes,
    )
    return SceneObject(
        object_id, thing.furniture.category, box, thing.room_id, thing.furniture.color
    )


def _openings(plan: FloorPlan) -> tuple[Opening, ...]:
    """Doors and windows as segments in the middle of their walls."""
    out = []
    for opening in plan.openings:
        start, end = opening.segment()
        out.append(
            Opening(
                opening.kind,
                opening.rooms,
                np.array(start, dtype=np.float64),
                np.array(end, dtype=np.float64),
                opening.bottom,
                opening.top,
            )
        )
    return tuple(out)


def _row(solid: Solid) -> tuple[float, ...]:
    return (
        solid.kind,
        *solid.center,
        *solid.half,
        *solid.turn,
        *solid.paint.rgb,
        solid.paint.material,
    )


def pack_parts(building: list[Solid], placed: list[Placed]) -> Parts:
    """Every solid as arrays: local rows turned and moved into the world at once."""
    rows = [_row(solid) for solid in building]
    stand = [(0.0, 0.0, 0.0, 1.0, 0.0, 0)] * len(rows)
    for index, thing in enumerate(placed):
        c, s = cosine_sine(thing.yaw)
        rows += [_row(solid) for solid in thing.furniture.solids]
        stand += [(thing.x, thing.y, thing.z, c, s, index + 1)] * len(thing.furniture.solids)
    table = np.array(rows, dtype=np.float64)
    pose = np.array(stand, dtype=np.float64)
    cosine, sine = pose[:, 3:4], pose[:, 4:5]
    local, turn = table[:, 1:4], table[:, 7:16].reshape(-1, 3, 3)
    center = pose[:, :3] + np.concatenate(
        [
            cosine * local[:, :1] - sine * local[:, 1:2],
            sine * local[:, :1] + cosine * local[:, 1:2],
            local[:, 2:],
        ],
        1,
    )
    axes = np.stack(
        [
            cosine * turn[..., 0] - sine * turn[..., 1],
            sine * turn[..., 0] + cosine * turn[..., 1],
            turn[..., 2],
        ],
        -1,
    )
    return Parts(
        kind=table[:, 0].astype(np.uint8),
        center=np.round(center, 6) + 0.0,
        half_size=np.round(table[:, 4:7], 6),
        axes=np.round(axes, 9) + 0.0,
        color=table[:, 16:19].astype(np.float32),
        material=table[:, 19].astype(np.uint8),
        object_id=pose[:, 5].astype(np.int32),
    )
