"""The OpenGL renderer against analytic cases, against itself, and against the ray caster."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes import renderer as renderer_module
from spatial_ttt.scenes.renderer import Layers, Renderer
from spatial_ttt.scenes.scene import PartKind
from spatial_ttt.scenes.shading import BACKGROUND
from tests.scenes.solids import (
    FACING_Y,
    make_camera,
    make_parts,
    random_camera,
    random_parts,
)

BOX, CYLINDER, ELLIPSOID = PartKind.BOX, PartKind.CYLINDER, PartKind.ELLIPSOID
WALL = (BOX, (0.0, 2.5, 0.0), (9.0, 0.5, 9.0))


@pytest.fixture(scope="module")
def small():
    with Renderer(64, 48) as drawn:
        yield drawn


def same(a: Layers, b: Layers) -> bool:
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("rgb", "object_id", "depth"))


def test_a_wall_at_two_metres_has_depth_two(small: Renderer) -> None:
    layers = small.render(make_parts(WALL), make_camera())
    assert layers.rgb.shape == (1, 48, 64, 3) and layers.rgb.dtype == np.uint8
    assert layers.object_id.dtype == np.int32 and (layers.object_id == 1).all()
    assert layers.depth.dtype == np.float32
    np.testing.assert_allclose(layers.depth, 2.0, atol=1e-5)


def test_a_sloping_wall_has_the_depth_of_its_plane(small: Renderer) -> None:
    yaw = math.radians(30.0)
    layers = small.render(
        make_parts((BOX, (0.0, 3.0, 0.0), (9.0, 0.5, 9.0)), yaw=yaw), make_camera()
    )
    slope = (np.arange(64) + 0.5 - 32) / 64
    # The front face is 0.5 m before the centre along the turned y axis (-sin, cos, 0).
    normal = np.array([-math.sin(yaw), math.cos(yaw)])
    depth = (3.0 * normal[1] - 0.5) / (slope * normal[0] + normal[1])
    np.testing.assert_allclose(layers.depth[0], np.tile(depth, (48, 1)), rtol=1e-5)


def test_nothing_is_background(small: Renderer) -> None:
    parts = make_parts((BOX, (0.0, -3.0, 0.0), (1.0, 1.0, 1.0)))  # behind the camera
    layers = small.render(parts, make_camera())
    assert (layers.object_id == 0).all() and (layers.depth == 0.0).all()
    assert (layers.rgb == np.array(BACKGROUND)).all()


def test_a_box_ends_at_its_edges(small: Renderer) -> None:
    # Front face at 2 m: columns 32 + 64 x / 2, rows 24 - 64 z / 2.
    layers = small.render(make_parts((BOX, (0.25, 3.0, 0.125), (0.25, 1.0, 0.125))), make_camera())
    wanted = np.zeros((48, 64), np.int32)
    wanted[16:24, 32:48] = 1
    np.testing.assert_array_equal(layers.object_id[0], wanted)


def test_a_ball_has_the_silhouette_of_its_cone() -> None:
    radius, distance, focal = 0.5, 2.0, 200.0
    camera = make_camera(200, 200, focal=focal)
    with Renderer(200, 200) as drawn:
        layers = drawn.render(
            make_parts((ELLIPSOID, (0.0, distance, 0.0), (radius, radius, radius))), camera
        )
    edge = focal * radius / math.sqrt(distance**2 - radius**2)
    area = int((layers.object_id == 1).sum())
    assert area == pytest.approx(math.pi * edge**2, rel=0.004)
    row = layers.object_id[0, 100]
    assert row.sum() == pytest.approx(2 * edge, abs=1.0)
    assert layers.depth[0, 99:101, 99:101] == pytest.approx(distance - radius, abs=1e-4)


def test_a_cylinder_has_a_round_side_and_a_flat_top() -> None:
    parts = make_parts((CYLINDER, (0.0, 3.0, 0.0), (0.5, 0.5, 0.4)))
    with Renderer(201, 201) as drawn:
        side = drawn.render(parts, make_camera(201, 201, focal=200.0))
        above = FACING_Y.copy()
        above[:3, :3] = np.array([[1.0, 0, 0], [0, -1.0, 0], [0, 0, -1.0]])
        above[:3, 3] = 0.0, 3.0, 2.4
        top = drawn.render(parts, make_camera(201, 201, above, focal=200.0))
    assert side.depth[0, 100, 100] == pytest.approx(2.5, abs=1e-5)
    slope = 20 / 200  # 20 pixels beside the middle: solve (t slope)^2 + (t - 3)^2 = 1 / 4
    a, b = 1 + slope**2, 3.0
    wanted = (b - math.sqrt(b * b - a * (9 - 0.25))) / a
    assert side.depth[0, 100, 120] == pytest.approx(wanted, abs=1e-5)
    inside = top.object_id[0] == 1
    np.testing.assert_allclose(top.depth[0][inside], 2.0, atol=1e-5)
    assert inside.sum() == pytest.approx(math.pi * 50.0**2, rel=0.005)


def test_the_nearest_part_wins(small: Renderer) -> None:
    near = (ELLIPSOID, (0.0, 1.0, 0.0), (0.3, 0.3, 0.3))
    for solids in ((near, WALL), (WALL, near)):
        layers = small.render(make_parts(*solids), make_camera())
        ball = 1 + solids.index(near)
        assert layers.object_id[0, 24, 32] == ball and layers.object_id[0, 0, 0] == 3 - ball


def test_parts_are_seen_from_outside_only(small: Renderer) -> None:
    around = (BOX, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    layers = small.render(make_parts(around, WALL), make_camera())
    assert (layers.object_id == 2).all()
    # In a corner of a ball's box, yet outside the ball: the ball is seen, whichever way one looks.
    corner = FACING_Y.copy()
    corner[:3, 3] = -0.9, -0.9, 0.0
    turned = corner.copy()
    turned[:3, :3] = np.array([[0.0, 0, 1.0], [-1.0, 0, 0], [0, -1.0, 0]])
    ball = make_parts((ELLIPSOID, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    layers = small.render(ball, make_camera(64, 48, corner, turned))
    assert (layers.object_id == 1).mean((1, 2)).min() > 0.3


def test_frames_are_chosen_and_the_lens_is_scaled() -> None:
    parts, camera = random_parts(5, 40), random_camera(5, 7)
    with Renderer(80, 60) as drawn, Renderer(160, 120) as large:
        every = drawn.render(parts, camera)
        some = drawn.render(parts, camera, [4, 1])
        tail = drawn.render(parts, camera, slice(5, None))
        double = large.render(parts, camera)
    np.testing.assert_array_equal(some.rgb, every.rgb[[4, 1]])
    np.testing.assert_array_equal(tail.depth, every.depth[5:])
    agreeing = double.object_id[:, ::2, ::2] == every.object_id
    assert agreeing.mean() > 0.93 and len(every.rgb) == 7


def test_stacks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, camera = random_parts(6, 60), random_camera(6, 9)
    with Renderer(80, 60) as drawn:
        whole = drawn.render(parts, camera)
    monkeypatch.setattr(renderer_module, "STACK_PIXELS", 80 * 60 * 2)
    with Renderer(80, 60) as drawn:
        assert drawn.stack == 2
        assert same(drawn.render(parts, camera), whole)


def test_renderers_repeat_themselves_and_live_side_by_side() -> None:
    parts, camera = random_parts(7, 300), random_camera(7, 3)
    with Renderer(80, 60, 2) as first, Renderer(40, 30) as second:
        one, other = first.render(parts, camera), second.render(parts, camera)
        assert same(first.render(parts, camera), one) and same(second.render(parts, camera), other)
    with Renderer(80, 60, 2) as third:
        many = random_parts(8, 3000)
        third.render(many, camera)  # outgrows the first textures
        assert same(third.render(parts, camera), one)


def test_samples_smooth_edges_and_nothing_else() -> None:
    parts = make_parts((BOX, (0.0, 3.0, 0.0), (0.4, 0.5, 0.4)), yaw=0.4)
    with Renderer(64, 48, 1) as hard, Renderer(64, 48, 2) as soft, Renderer(64, 48, 3) as softer:
        layers = [drawn.render(parts, make_camera()) for drawn in (hard, soft, softer)]
    base = layers[0]
    for smooth in layers[1:]:
        assert (smooth.object_id == base.object_id).mean() > 0.97
        inner = np.zeros((48, 64), bool)
        for rows, columns in ((slice(18, 30), slice(27, 36)), (slice(0, 8), slice(0, 64))):
            inner[rows, columns] = True
        np.testing.assert_array_equal(smooth.rgb[0][inner], base.rgb[0][inner])
        assert len(np.unique(smooth.rgb.reshape(-1, 3), axis=0)) > len(
            np.unique(base.rgb.reshape(-1, 3), axis=0)
        )


def test_visibility_counts_the_pixels_of_ids(small: Renderer) -> None:
    parts, camera = random_parts(9, 50), random_camera(9, 4, 64, 48)
    seen = small.visibility(parts, camera, slice(1, 4))
    ids = small.render(parts, camera, slice(1, 4)).object_id
    np.testing.assert_array_equal(seen.object_ids, np.unique(parts.object_id[parts.object_id > 0]))
    wanted = [[(frame == number).sum() for number in seen.object_ids] for frame in ids]
    np.testing.assert_array_equal(seen.pixels, wanted)
    np.testing.assert_array_equal(seen.times, camera.times[1:4])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("samples", [1, 2])
def test_renderer_matches_the_ray_caster(seed: int, samples: int) -> None:
    torch = pytest.importorskip("torch")
    from spatial_ttt.scenes.raycast import pack_cameras, pack_scenes, raycast

    parts, camera = random_parts(seed, 60), random_camera(seed, 2, 48, 36)
    with Renderer(48, 36, samples) as drawn:
        layers = drawn.render(parts, camera)
    cameras = pack_cameras([camera], (48, 36))
    oracle = raycast(pack_scenes([parts]), cameras, samples, torch.float64)
    agree = oracle.object_id[0].numpy() == layers.object_id
    assert agree.mean() > 0.998
    wanted = oracle.depth[0].numpy()
    error = np.abs(layers.depth - wanted) / np.maximum(wanted, 0.05)
    assert np.mean(error[agree] > 1e-4) < 2e-3
    apart = np.abs(layers.rgb.astype(int) - oracle.rgb[0].numpy()).max(-1)
    assert np.mean(apart[agree] > 2) < 3e-3


def test_mistakes_are_named(small: Renderer) -> None:
    parts, camera = make_parts(WALL), make_camera()
    with pytest.raises(SceneError, match="at least 1 x 1"):
        Renderer(0, 48)
    with pytest.raises(SceneError, match="1 to 4 samples"):
        Renderer(64, 48, 5)
    with pytest.raises(SceneError, match="draw smaller frames"):
        Renderer(100_000, 8)
    with pytest.raises(SceneError, match="no frame chosen"):
        small.render(parts, camera, [])
    with pytest.raises(SceneError, match="within 0 to 0"):
        small.render(parts, camera, [3])
    with pytest.raises(SceneError, match="not orthonormal"):
        small.render(parts, replace(camera, camera_to_world=2.0 * camera.camera_to_world))
    closed = Renderer(8, 8)
    closed.close()
    closed.close()
    with pytest.raises(SceneError, match="was closed"):
        closed.render(parts, camera)


def test_without_a_driver_the_packages_are_named() -> None:
    code = "from spatial_ttt.scenes.renderer import Renderer\nRenderer(8, 8)"
    nowhere = {
        "__EGL_VENDOR_LIBRARY_FILENAMES": "/nonexistent.json",
        "LIBGL_DRIVERS_PATH": "/nonexistent",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "SceneError" in done.stderr and "install libegl1" in done.stderr
