"""Whether a home could stand and be walked through, judged from its boxes and parts alone.

Nothing here uses the routines that place furniture: boxes are compared by separating axes, support
is looked for among the parts below, the walk is measured against every solid.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spatial_ttt.scenes.homes import Home
from spatial_ttt.scenes.paths import clearance, obstacles
from spatial_ttt.scenes.scene import Array, Camera, PartKind, Parts, Scene, SceneObject

TOUCH = 1e-3
"""Boxes may share this much without counting as overlapping, metres."""
FLAT = 0.02
"""Things no higher than this (rugs) may lie under others, metres."""
LEAST_CLEARANCE = 0.1


def faults(home: Home) -> list[str]:
    """Everything wrong with a home, in words; empty when it could exist."""
    return [
        *_malformed_parts(home.parts),
        *_loose_boxes(home.scene, home.parts),
        *_overlaps(home),
        *_outside(home.scene),
        *_floating(home),
    ]


def walk_faults(home: Home, camera: Camera, *, every_room: bool = True) -> list[str]:
    """What is wrong with a walk: bumps, rooms never entered, poses that are no rotations."""
    points = camera.camera_to_world[:, :2, 3]
    out = []
    near = clearance(obstacles(home), points)
    if float(near.min()) < LEAST_CLEARANCE - 1e-6:
        worst = int(near.argmin())
        out.append(f"the camera is {near[worst]:.3f} m from a solid at {camera.times[worst]:.2f} s")
    entered = set(rooms_at(home.scene, points).tolist())
    missed = [room.room_id for room in home.scene.rooms if room.room_id not in entered]
    if every_room and missed:
        out.append(f"the walk never enters rooms {missed}")
    turn = camera.camera_to_world[:, :3, :3]
    if not np.allclose(turn @ turn.transpose(0, 2, 1), np.eye(3), atol=1e-6):
        out.append("a camera pose is not a rotation")
    if not np.isfinite(camera.camera_to_world).all() or (np.diff(camera.times) <= 0).any():
        out.append("camera poses or times are not finite and rising")
    return out


def rooms_at(scene: Scene, points: Array) -> NDArray[np.int64]:
    """The room each floor point [N, 2] lies in, -1 for none (in a doorway)."""
    out = np.full(len(points), -1, dtype=np.int64)
    for room in scene.rooms:
        out[inside(room.polygon, points)] = room.room_id
    return out


def inside(polygon: Array, points: Array) -> NDArray[np.bool_]:
    """Whether points [N, 2] lie in a polygon (even-odd rule)."""
    x, y = points[:, 0], points[:, 1]
    out = np.zeros(len(points), dtype=np.bool_)
    for (xa, ya), (xb, yb) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if ya == yb:
            continue
        crosses = (ya > y) != (yb > y)
        out ^= crosses & (x < (xb - xa) * (y - ya) / (yb - ya) + xa)
    return out


def extents(parts: Parts, axes: Array) -> tuple[Array, Array]:
    """Lowest and highest reach [P, 3] of every part along three unit axes (rows)."""
    along = np.einsum("pij,kj->pki", parts.axes, axes)  # [P, axis k, own axis i]
    reach = along * parts.half_size[:, None, :]
    box = np.abs(reach).sum(2)
    ball = np.sqrt((reach**2).sum(2))
    tube = np.sqrt((reach[..., :2] ** 2).sum(2)) + np.abs(reach[..., 2])
    kind = parts.kind[:, None]
    half = np.where(kind == PartKind.BOX, box, np.where(kind == PartKind.CYLINDER, tube, ball))
    middle = parts.center @ axes.T
    return middle - half, middle + half


def corners(thing: SceneObject) -> Array:
    """The four floor corners of an object's box [4, 2]."""
    box = thing.box
    signs = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    return np.asarray(box.center[:2] + (signs * box.size[:2]) @ box.axes[:2, :2])


def boxes_overlap(a: SceneObject, b: SceneObject) -> bool:
    """Separating axes for two boxes that are upright but turned about z."""
    rise_a, rise_b = a.box.size[2] / 2, b.box.size[2] / 2
    if abs(a.box.center[2] - b.box.center[2]) > rise_a + rise_b - TOUCH:
        return False
    quad_a, quad_b = corners(a), corners(b)
    for axis in (*a.box.axes[:2, :2], *b.box.axes[:2, :2]):
        pa, pb = quad_a @ axis, quad_b @ axis
        if min(pa.max(), pb.max()) - max(pa.min(), pb.min()) < TOUCH:
            return False
    return True


def _malformed_parts(parts: Parts) -> list[str]:
    out = []
    arrays = (parts.center, parts.half_size, parts.axes, parts.color)
    if not all(np.isfinite(array).all() for array in arrays):
        out.append("a part is not finite")
    if (parts.half_size <= 0).any():
        out.append("a part has no thickness")
    if not np.allclose(parts.axes @ parts.axes.transpose(0, 2, 1), np.eye(3), atol=1e-6):
        out.append("a part's axes are not orthonormal")
    if (parts.color < 0).any() or (parts.color > 1).any():
        out.append("a part's colour leaves 0..1")
    if (parts.material > 8).any() or (parts.kind > 2).any():
        out.append("a part has an unknown material or kind")
    return out


def _loose_boxes(scene: Scene, parts: Parts) -> list[str]:
    """Boxes that do not fit their object's parts tightly."""
    out = []
    for thing in scene.objects:
        mine = parts.object_id == thing.object_id
        own = Parts(*(getattr(parts, name)[mine] for name in Parts.__slots__))
        low, high = extents(own, thing.box.axes)
        middle = thing.box.axes @ thing.box.center
        gap = np.abs(
            np.stack(
                [
                    low.min(0) - middle + thing.box.size / 2,
                    high.max(0) - middle - thing.box.size / 2,
                ]
            )
        )
        if gap.max() > 2e-3:
            out.append(f"the box of {_name(thing)} misses its parts by {gap.max():.4f} m")
    return out


def _name(thing: SceneObject) -> str:
    return f"{thing.category} {thing.object_id}"


def _overlaps(home: Home) -> list[str]:
    """Pairs of objects that share space, but for what stands on something, and rugs."""
    things = [t for t in home.scene.objects if t.box.size[2] > FLAT]
    support = {t.object_id: int(s) for t, s in zip(home.scene.objects, home.supports, strict=True)}
    low = np.array([[*corners(t).min(0), t.box.center[2] - t.box.size[2] / 2] for t in things])
    high = np.array([[*corners(t).max(0), t.box.center[2] + t.box.size[2] / 2] for t in things])
    near = ((low[:, None] < high[None]) & (low[None] < high[:, None])).all(2)
    out = []
    for i, j in np.argwhere(np.triu(near, 1)):
        a, b = things[i], things[j]
        if support[a.object_id] == b.object_id or support[b.object_id] == a.object_id:
            continue
        if boxes_overlap(a, b):
            out.append(f"{_name(a)} and {_name(b)} share space")
    return out + _stuck_in_building(home, things, low, high)


def _stuck_in_building(home: Home, things: list[SceneObject], low: Array, high: Array) -> list[str]:
    """Objects that reach into walls, door leaves or ceilings."""
    parts = home.parts
    building = parts.object_id == 0
    near_low = parts.center[building] - parts.half_size[building] + 2e-3
    near_high = parts.center[building] + parts.half_size[building] - 2e-3
    hits = ((low[:, None] < near_high[None]) & (near_low[None] < high[:, None])).all(2)
    return [f"{_name(things[i])} reaches into the building" for i in np.flatnonzero(hits.any(1))]


def _outside(scene: Scene) -> list[str]:
    rooms = {room.room_id: room for room in scene.rooms}
    out = []
    for thing in scene.objects:
        room = rooms[thing.room_id if thing.room_id is not None else -1]
        quad = corners(thing)
        quad = quad + (thing.box.center[:2] - quad) * 2e-3
        top = thing.box.center[2] + thing.box.size[2] / 2
        if not inside(room.polygon, quad).all() or top > room.height + TOUCH:
            out.append(f"{_name(thing)} leaves room {room.room_id}")
    return out


def _floating(home: Home) -> list[str]:
    """Objects that nothing holds up."""
    out = []
    rooms = {room.room_id: room for room in home.scene.rooms}
    upright = np.eye(3)
    low, high = extents(home.parts, upright)
    for thing, support in zip(home.scene.objects, home.supports.tolist(), strict=True):
        bottom = thing.box.center[2] - thing.box.size[2] / 2
        if support == 0:
            held = abs(bottom) <= TOUCH
        elif support == -2:
            room = rooms[thing.room_id if thing.room_id is not None else -1]
            held = abs(bottom + thing.box.size[2] - room.height) <= TOUCH
        elif support == -1:
            held = _touches_wall(home.scene, thing)
        else:
            x, y = thing.box.center[:2]
            under = (home.parts.object_id == support) & (np.abs(high[:, 2] - bottom) < 0.02)
            # A little beyond the edge counts, for what lies across two cushions.
            under &= (low[:, 0] - 0.02 <= x) & (x <= high[:, 0] + 0.02)
            under &= (low[:, 1] - 0.02 <= y) & (y <= high[:, 1] + 0.02)
            held = bool(under.any())
        if not held:
            out.append(f"{_name(thing)} floats (support {support})")
    return out


def _touches_wall(scene: Scene, thing: SceneObject) -> bool:
    """Whether a box's back side lies within 5 cm of a wall of its room."""
    back = thing.box.center[:2] + thing.box.axes[1, :2] * (thing.box.size[1] / 2)
    for room in scene.rooms:
        if room.room_id != thing.room_id:
            continue
        for start, end in zip(room.polygon, np.roll(room.polygon, -1, axis=0), strict=True):
            along = (end - start) / np.sqrt(((end - start) ** 2).sum())
            offset = back - start
            away = abs(float(along[0] * offset[1] - along[1] * offset[0]))
            if away < 0.05 and 0 <= float(offset @ along) <= float(np.abs(end - start).sum()):
                return True
    return False
