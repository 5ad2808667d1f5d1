"""Made-up flats for tests: rooms in a row with doors, boxes in them, a walk, and what it saw.

Nothing here is used by the package. Objects stand apart from each other, sizes and turns are drawn
at random, and the camera sees an object when it is within reach and in front.
"""

from __future__ import annotations

import numpy as np

from spatial_ttt.scenes.boxes import overlaps, stack, yaw_axes
from spatial_ttt.scenes.scene import (
    Camera,
    Opening,
    OrientedBox,
    Room,
    Scene,
    SceneObject,
    Visibility,
)
from spatial_ttt.scenes.scene_json import count_objects

NAMES = (
    "bed", "sofa", "table", "chair", "lamp", "plant", "tv", "shelf", "desk", "stool",
    "basket", "cabinet", "piano", "bench", "heater", "stove",
)  # fmt: skip
WIDTH, HEIGHT = 64, 48
FUNCTIONS = ("kitchen", "bedroom", "living room", "office", "bathroom")


def flat(seed: int, num_rooms: int = 2, per_room: int = 9) -> Scene:
    """A row of rooms of 5 x 4 m or so, a door between each two."""
    rng = np.random.default_rng([seed, 1])
    rooms, openings, objects = [], [], []
    left = 0.0
    for n in range(num_rooms):
        width, depth = rng.uniform(3.5, 6.5), rng.uniform(3.5, 5.5)
        corners = [[left, 0.0], [left + width, 0.0], [left + width, depth], [left, depth]]
        rooms.append(Room(n + 1, FUNCTIONS[n % len(FUNCTIONS)], np.array(corners), 2.6))
        if n:
            x = left - 0.05
            openings.append(
                Opening("door", (n, n + 1), np.array([x, 1.0]), np.array([x, 2.0]), 0.0, 2.1)
            )
        objects += _furnish(rng, rooms[-1], per_room, len(objects))
        left += width + 0.1
    area = float(sum(np.ptp(r.polygon[:, 0]) * np.ptp(r.polygon[:, 1]) for r in rooms))
    return Scene(
        f"flat{seed:04d}",
        "test",
        tuple(objects),
        tuple(rooms),
        tuple(openings),
        room_size=area,
        object_counts=count_objects(tuple(objects)),
    )


def _furnish(rng: np.random.Generator, room: Room, wanted: int, before: int) -> list[SceneObject]:
    low, high = room.polygon.min(0), room.polygon.max(0)
    placed: list[SceneObject] = []
    for _ in range(wanted * 12):
        if len(placed) == wanted:
            break
        size = rng.uniform([0.25, 0.25, 0.3], [1.1, 0.9, 1.6])
        spot = rng.uniform(low + 0.7, high - 0.7)
        center = np.array([spot[0], spot[1], size[2] / 2])
        box = OrientedBox(center, size, yaw_axes(rng.uniform(-np.pi, np.pi)))
        others = stack([item.box for item in placed])
        mine = stack([box] * len(placed))
        if len(placed) and overlaps(mine, others, -0.1).any():
            continue
        name = NAMES[int(rng.integers(len(NAMES)))]
        placed.append(SceneObject(before + len(placed) + 1, name, box, room.room_id, "red"))
    return placed


def walk(scene: Scene, seed: int = 0, frames: int = 40) -> tuple[Camera, Visibility]:
    """A camera that goes down the row of rooms, turning its head, and what it saw."""
    rng = np.random.default_rng([seed, 2])
    low = min(room.polygon[:, 0].min() for room in scene.rooms)
    high = max(room.polygon[:, 0].max() for room in scene.rooms)
    x = np.linspace(low + 0.4, high - 0.4, frames)
    yaw = np.linspace(0, 2 * np.pi * len(scene.rooms), frames) + rng.uniform(0, 6)
    pose = np.zeros((frames, 4, 4))
    forward = np.stack([np.cos(yaw), np.sin(yaw), np.zeros(frames)], axis=1)
    down = np.tile([0.0, 0.0, -1.0], (frames, 1))
    pose[:, :3, 2], pose[:, :3, 1] = forward, down
    pose[:, :3, 0] = np.cross(down, forward)
    pose[:, :3, 3] = np.stack([x, np.full(frames, 1.5), np.full(frames, 1.4)], axis=1)
    pose[:, 3, 3] = 1.0
    times = np.arange(frames) * 0.8
    intrinsics = np.array([[40.0, 0, WIDTH / 2], [0, 40.0, HEIGHT / 2], [0, 0, 1]])
    camera = Camera(WIDTH, HEIGHT, intrinsics, pose, times)
    return camera, look(scene, camera)


def look(scene: Scene, camera: Camera) -> Visibility:
    """What a camera sees if nothing hides anything: objects ahead of it within 4.5 m."""
    pose, focal = camera.camera_to_world, camera.intrinsics[0, 0]
    ids = np.array([item.object_id for item in scene.objects], dtype=np.int32)
    centers = np.array([item.box.center for item in scene.objects])
    sizes = np.array([item.box.size for item in scene.objects])
    forward = pose[:, None, :3, 2]
    offset = centers[None] - pose[:, None, :3, 3]
    depth = (offset * forward).sum(2)
    side = np.linalg.norm(offset - depth[..., None] * forward, axis=2)
    visible = (depth > 0.3) & (side < depth) & (depth < 4.5)
    pixels = focal**2 * sizes[None, :, 0] * sizes[None, :, 2] / np.maximum(depth, 0.3) ** 2
    pixels = np.where(visible, np.minimum(pixels, 0.5 * camera.width * camera.height), 0.0)
    return Visibility(ids, pixels.astype(np.int32), camera.times)
