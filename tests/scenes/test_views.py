"""Packed cameras, culling that never drops what is seen, and pixel counts."""

from __future__ import annotations

import numpy as np
import pytest

from spatial_ttt.scenes.scene import PartKind
from spatial_ttt.scenes.views import NEAR, count_pixels, pack_views, part_bounds, visible_faces
from tests.scenes.solids import FACING_Y, make_camera, make_parts, random_camera, random_parts

SIGNS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)


def test_poses_and_lens_are_those_of_the_camera() -> None:
    camera = random_camera(1, 5, 80, 60)
    views = pack_views(camera, slice(1, None, 2), 160, 30, samples=2)
    assert views.count == 2 and views.size == (320, 60)
    np.testing.assert_allclose(views.texels[:, 3:], camera.camera_to_world[[1, 3], :3], atol=1e-6)
    inverse = np.linalg.inv(camera.camera_to_world[[1, 3]])[:, :3]
    np.testing.assert_allclose(views.texels[:, :3], inverse, atol=1e-5)
    k = camera.intrinsics
    np.testing.assert_allclose(views.lens, (4 * k[0, 0], k[1, 1], 4 * k[0, 2], k[1, 2]))
    np.testing.assert_array_equal(views.times, camera.times[[1, 3]])


@pytest.mark.parametrize("seed", range(3))
def test_a_part_with_a_corner_in_view_is_not_culled(seed: int) -> None:
    parts, camera = random_parts(seed, 300), random_camera(seed, 4)
    views = pack_views(camera, None, camera.width, camera.height)
    faces, num_boxes = visible_faces(part_bounds(parts), views)
    listed = {(int(frame), int(item) >> 3) for item, frame in faces.tolist()}
    corners = parts.center[:, None] + (SIGNS * parts.half_size[:, None]) @ parts.axes
    outside_all = 0
    for frame, pose in enumerate(camera.camera_to_world):
        local = (corners - pose[:3, 3]) @ pose[:3, :3]
        image = local @ camera.intrinsics.T
        column, row = (image[..., i] / image[..., 2] for i in (0, 1))
        seen = (local[..., 2] > NEAR) & (column > 0) & (column < 80) & (row > 0) & (row < 60)
        eye = np.einsum("pij,pj->pi", parts.axes, pose[:3, 3] - parts.center) / parts.half_size
        inside_box = (np.abs(eye) < 1.0).all(1) & (parts.kind == PartKind.BOX)
        for part in np.flatnonzero(seen.any(1) & ~inside_box):
            assert (frame, int(part)) in listed
        outside_all += sum((frame, part) not in listed for part in range(len(parts.kind)))
    assert outside_all > 300  # it does cull
    is_box = parts.kind[faces[:, 0] >> 3] == PartKind.BOX
    assert is_box[:num_boxes].all() and not is_box[num_boxes:].any()


def test_faces_that_look_away_are_left_out() -> None:
    parts = make_parts((PartKind.BOX, (0.5, 3.0, -0.2), (0.2, 0.5, 0.1)))
    faces, num_boxes = visible_faces(part_bounds(parts), pack_views(make_camera(), None, 64, 48))
    # Seen from the origin: the left side (axis 0, low), the front (axis 1, low), the top (axis 2, high).
    assert num_boxes == 3
    assert sorted(faces[:, 0].tolist()) == [0 << 1 | 0, 1 << 1 | 0, 2 << 1 | 1]


def test_near_parts_come_first() -> None:
    boxes = [(PartKind.BOX, (0.0, y, 0.0), (0.3, 0.3, 0.3)) for y in (5.0, 2.0, 3.5)]
    pose = FACING_Y.copy()
    views = pack_views(make_camera(64, 48, pose, pose), None, 64, 48)
    faces, _ = visible_faces(part_bounds(make_parts(*boxes)), views)
    assert faces[:, 1].tolist() == [0, 0, 0, 1, 1, 1]
    assert (faces[:, 0] >> 3).tolist() == [1, 2, 0, 1, 2, 0]


def test_pixels_are_counted_per_object() -> None:
    ids = np.array([[[0, 1, 1], [7, 7, 7]], [[9, 0, 0], [0, 0, 1]]], np.int32)
    counts = count_pixels(ids, np.array([1, 3, 7], np.int32))
    assert counts.dtype == np.int32 and counts.tolist() == [[2, 0, 3], [1, 0, 0]]
