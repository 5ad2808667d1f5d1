"""The first camera of the curriculum: it turns around inside one room, a step this way and that."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from spatial_ttt.scenes.homes import Home
from spatial_ttt.scenes.scene import Array, Camera
from spatial_ttt.scenes.space import CELL
from spatial_ttt.train.clip_types import ClipSpec

EYE_HEIGHT = (1.3, 1.7)  # m
FIELD_OF_VIEW = (70.0, 90.0)  # degrees across
PITCH = (8.0, 22.0)  # degrees below the horizon
TURN = (300.0, 450.0)  # degrees over the clip


def look_around(home: Home, spec: ClipSpec, rng: Generator) -> Camera:
    """A camera that turns about once while it drifts between two free spots of the first room."""
    start, end = _two_spots(home, rng)
    progress = np.linspace(0.0, 1.0, spec.num_frames)
    swing = (1.0 - np.cos(math.pi * progress)) / 2.0
    eye = start + (end - start) * swing[:, None]  # [T, 2]
    turn = math.radians(rng.uniform(*TURN)) * (1 if rng.random() < 0.5 else -1)
    pace = progress + 0.04 * np.sin(2 * math.pi * (progress * rng.integers(1, 4) + rng.random()))
    heading = rng.uniform(0, 2 * math.pi) + turn * pace
    pitch = math.radians(rng.uniform(*PITCH))
    height = rng.uniform(*EYE_HEIGHT)
    position = np.column_stack((eye, np.full(spec.num_frames, height)))
    return pinhole(
        spec, position, heading, np.full(spec.num_frames, pitch), rng.uniform(*FIELD_OF_VIEW)
    )


def _two_spots(home: Home, rng: Generator) -> tuple[Array, Array]:
    space = home.spaces[int(rng.integers(len(home.spaces)))]
    free = np.argwhere(space.free)
    corner = np.array([space.room.bounds.x0, space.room.bounds.y0])
    if not len(free):
        bounds = space.room.bounds
        middle = np.array([(bounds.x0 + bounds.x1) / 2, (bounds.y0 + bounds.y1) / 2])
        return middle, middle
    spots = corner + (free + 0.5) * CELL
    start = spots[int(rng.integers(len(spots)))]
    near = spots[np.linalg.norm(spots - start, axis=1) < 1.5]
    return start, near[int(rng.integers(len(near)))]


def pinhole(spec: ClipSpec, position: Array, heading: Array, pitch: Array, fov: float) -> Camera:
    """A camera at `position` [T, 3] m looking along `heading` [T] rad, `pitch` [T] rad downwards."""
    forward = np.stack(
        (np.cos(pitch) * np.cos(heading), np.cos(pitch) * np.sin(heading), -np.sin(pitch)), 1
    )
    right = np.stack((np.sin(heading), -np.cos(heading), np.zeros_like(heading)), 1)
    down = np.cross(forward, right)
    pose = np.tile(np.eye(4), (len(heading), 1, 1))
    pose[:, :3, 0], pose[:, :3, 1], pose[:, :3, 2], pose[:, :3, 3] = right, down, forward, position
    focal = spec.width / 2 / math.tan(math.radians(fov) / 2)
    lens = np.array([[focal, 0, spec.width / 2], [0, focal, spec.height / 2], [0, 0, 1.0]])
    return Camera(spec.width, spec.height, lens, pose, spec.times)
