"""What a renderer needs to know of a camera: poses and lens as numbers, and which parts it sees.

Pixel (row i, column j) is the square from (j, i) to (j + 1, i + 1): its middle is at
(j + 0.5, i + 0.5), so a lens without shift has its principal point at (width / 2, height / 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.scene import Array, Camera, PartKind, Parts

NEAR, FAR = 0.05, 500.0
"""Depths in metres between which a part is drawn. Parts are seen from outside only."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Views:
    """T frames of a camera, for targets of `size` samples."""

    texels: Floats  # [T, 6, 4] rows of world to camera, then of camera to world
    lens: tuple[float, float, float, float]  # focal lengths, principal point, in samples
    size: tuple[int, int]  # samples across and down
    times: Array  # [T] s

    @property
    def count(self) -> int:
        """Number of frames."""
        return len(self.texels)

    def slice(self, begin: int, end: int) -> Views:
        """Frames from begin to before end."""
        return replace(self, texels=self.texels[begin:end], times=self.times[begin:end])


def pack_views(
    camera: Camera, frames: slice | Sequence[int] | None, width: int, height: int, samples: int = 1
) -> Views:
    """The chosen frames, their lens scaled to width x height pixels of samples² samples."""
    chosen = np.arange(len(camera.times))[_selection(frames, len(camera.times))]
    if chosen.size == 0:
        raise SceneError(f"no frame chosen: camera has {len(camera.times)}, frames is {frames}")
    pose = np.asarray(camera.camera_to_world, np.float64)[chosen]
    rotation, eye = pose[:, :3, :3], pose[:, :3, 3]
    inverse = np.swapaxes(rotation, 1, 2)
    if not np.allclose(inverse @ rotation, np.eye(3), atol=1e-5):
        raise SceneError("camera_to_world must hold rotations: its 3 x 3 block is not orthonormal")
    texels = np.empty((len(chosen), 6, 4), np.float32)
    texels[:, :3, :3], texels[:, :3, 3] = inverse, -(inverse @ eye[:, :, None])[:, :, 0]
    texels[:, 3:, :3], texels[:, 3:, 3] = rotation, eye
    k = camera.intrinsics
    sx, sy = samples * width / camera.width, samples * height / camera.height
    lens = (float(k[0, 0] * sx), float(k[1, 1] * sy), float(k[0, 2] * sx), float(k[1, 2] * sy))
    return Views(texels, lens, (width * samples, height * samples), camera.times[chosen])


def _selection(frames: slice | Sequence[int] | None, count: int) -> slice | NDArray[np.int64]:
    if frames is None:
        return slice(None)
    if isinstance(frames, slice):
        return frames
    indices = np.asarray(frames, np.int64)
    if indices.size and (indices.min() < 0 or indices.max() >= count):
        raise SceneError(f"frames must be within 0 to {count - 1}, got {frames}")
    return indices


@dataclass(frozen=True, slots=True)
class Bounds:
    """The parts' boxes laid out for culling against many views at once."""

    is_round: NDArray[np.bool_]  # [P]
    center: Floats  # [3, P] m
    spans: Floats  # [3, 3 P] half axes in the world, m, axis by axis
    to_unit: Floats  # [3, 3 P] world vector to units of the half size along each own axis
    offset: Floats  # [3 P] the centre in those units
    half: Floats  # [3 P] m


def part_bounds(parts: Parts) -> Bounds:
    """The boxes of all parts, cylinders and ellipsoids included."""
    half = np.asarray(parts.half_size, np.float64)
    axes = np.asarray(parts.axes, np.float64)
    to_unit = axes / half[:, :, None]  # [P, axis, xyz]
    offset = np.einsum("pij,pj->ip", to_unit, parts.center)
    return Bounds(
        parts.kind != PartKind.BOX,
        _f32(np.asarray(parts.center).T),
        _f32((axes * half[:, :, None]).transpose(2, 1, 0).reshape(3, -1)),
        _f32(to_unit.transpose(2, 1, 0).reshape(3, -1)),
        _f32(offset.reshape(-1)),
        _f32(half.T.reshape(-1)),
    )


def visible_faces(bounds: Bounds, views: Views) -> tuple[NDArray[np.uint32], int]:
    """The faces of part boxes to draw: uint32 [N, 2], boxes first, in a frame near parts first.

    An entry is (part << 3 | axis of the face << 1 | whether it is the axis' positive side, frame);
    the second value is the number of entries that belong to boxes.
    """
    count, num_parts = views.count, bounds.center.shape[1]
    eye = views.texels[:, 3:, 3]
    unit_eye = (eye @ bounds.to_unit - bounds.offset).reshape(count, 3, num_parts)
    apart = np.abs(unit_eye) - 1.0
    seen = _in_frustum(bounds, views)
    frame, axis, part = np.nonzero((apart > 0.0) & seen[:, None])
    side = unit_eye[frame, axis, part] > 0.0
    distance = (np.maximum(apart, 0.0) * bounds.half.reshape(1, 3, -1)) ** 2
    distance = distance.sum(1)[frame, part]
    is_round = bounds.is_round[part]
    order = np.lexsort((distance, frame, is_round))
    item = (part << 3) | (axis << 1) | side
    entries = np.stack([item, frame], 1).astype(np.uint32)[order]
    num_boxes = len(entries) - int(is_round.sum())
    return np.concatenate([entries, _faces_from_within(apart, seen, bounds)]), num_boxes


def _faces_from_within(
    apart: Floats, seen: NDArray[np.bool_], bounds: Bounds
) -> NDArray[np.uint32]:
    """All six faces of round parts whose box, though not they themselves, may hold the camera."""
    frame, part = np.nonzero((apart <= 0.0).all(1) & seen & bounds.is_round)
    faces = np.array([0, 1, 2, 3, 4, 5], np.uint32)
    item = (part.astype(np.uint32)[:, None] << 3) | faces
    return np.stack([item.ravel(), np.repeat(frame, 6).astype(np.uint32)], 1)


def _in_frustum(bounds: Bounds, views: Views) -> NDArray[np.bool_]:
    """[T, P] whether a part's box may reach into the view: not wholly behind one of five planes."""
    (fx, fy, cx, cy), (width, height) = views.lens, views.size
    planes = np.array(
        [[0, 0, 1], [fx, 0, cx], [-fx, 0, width - cx], [0, fy, cy], [0, -fy, height - cy]],
        np.float32,
    )
    count, num_parts = views.count, bounds.center.shape[1]
    normals = (planes @ views.texels[:, :3, :3]).reshape(-1, 3)  # [T * 5, 3] in the world
    shift = (planes @ views.texels[:, :3, 3].T).T.reshape(-1, 1)
    reach = np.abs(normals @ bounds.spans).reshape(-1, 3, num_parts).sum(1)
    level = (normals @ bounds.center + shift + reach).reshape(count, 5, num_parts)
    level[:, 0] -= NEAR
    return np.asarray((level > 0.0).all(1))


def count_pixels(object_id: NDArray[np.int32], object_ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Pixels of each listed object in each frame: [T, H, W] and [O] -> int32 [T, O]."""
    frames = len(object_id)
    size = 1 + int(max(object_id.max(initial=0), object_ids.max(initial=0)))
    counts = np.empty((frames, size), np.int32)
    for index in range(frames):
        counts[index] = np.bincount(object_id[index].ravel(), minlength=size)
    return counts[:, object_ids]


def _f32(values: Array) -> Floats:
    return np.ascontiguousarray(values, np.float32)
