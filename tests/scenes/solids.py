"""Small scenes of solids and cameras for the drawing tests."""

from __future__ import annotations

import math

import numpy as np

from spatial_ttt.scenes.scene import Array, Camera, PartKind, Parts

Solid = tuple[PartKind, tuple[float, ...], tuple[float, ...]]
FACING_Y = np.array([[1.0, 0, 0, 0], [0, 0, 1.0, 0], [0, -1.0, 0, 0], [0, 0, 0, 1.0]])
"""A camera at the origin that looks along world y, with world z up."""


def make_parts(*solids: Solid, yaw: float = 0.0, material: int = 0) -> Parts:
    """Grey solids (kind, centre, half size) with object ids 1, 2, ..., turned about the vertical."""
    count = len(solids)
    c, s = math.cos(yaw), math.sin(yaw)
    return Parts(
        kind=np.array([kind for kind, _, _ in solids], np.uint8),
        center=np.array([center for _, center, _ in solids]).reshape(-1, 3),
        half_size=np.array([half for _, _, half in solids]).reshape(-1, 3),
        axes=np.tile(np.array([[c, s, 0], [-s, c, 0], [0, 0, 1.0]]), (count, 1, 1)),
        color=np.full((count, 3), 0.5, np.float32),
        material=np.full(count, material, np.uint8),
        object_id=np.arange(1, count + 1, dtype=np.int32),
    )


def make_camera(
    width: int = 64, height: int = 48, *poses: Array, focal: float | None = None
) -> Camera:
    """A camera of 64 pixels of focal length per 64 of width, by default looking along world y."""
    focal = focal or float(width)
    intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    stack = np.stack(poses or (FACING_Y,))
    return Camera(width, height, intrinsics, stack, np.arange(len(stack)) / 30.0)


def random_rotation(rng: np.random.Generator) -> Array:
    """A rotation drawn evenly from all."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else -q


def random_parts(seed: int, count: int, num_objects: int = 20) -> Parts:
    """Solids of all kinds and materials, turned anyhow, within 4 m of the origin."""
    rng = np.random.default_rng(seed)
    return Parts(
        kind=rng.integers(0, 3, count).astype(np.uint8),
        center=rng.uniform(-4.0, 4.0, (count, 3)),
        half_size=rng.uniform(0.05, 0.9, (count, 3)),
        axes=np.stack([random_rotation(rng) for _ in range(count)]),
        color=rng.uniform(0.02, 1.0, (count, 3)).astype(np.float32),
        material=rng.integers(0, 9, count).astype(np.uint8),
        object_id=rng.integers(0, num_objects + 1, count).astype(np.int32),
    )


def random_camera(seed: int, frames: int, width: int = 80, height: int = 60) -> Camera:
    """A camera within 3 m of the origin, looking anyhow, its lens off centre."""
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3, :3] = np.stack([random_rotation(rng) for _ in range(frames)])
    poses[:, :3, 3] = rng.uniform(-3.0, 3.0, (frames, 3))
    fx, fy = rng.uniform(0.6, 1.1, 2) * width
    cx, cy = width * rng.uniform(0.4, 0.6), height * rng.uniform(0.4, 0.6)
    intrinsics = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    return Camera(width, height, intrinsics, poses, np.arange(frames) / 30.0)
