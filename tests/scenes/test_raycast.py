"""The torch ray caster against analytic cases, and the Triton kernels against it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from spatial_ttt.errors import ConfigError, SceneError  # noqa: E402 (after the skip)
from spatial_ttt.scenes.raycast import (  # noqa: E402
    pack_cameras,
    pack_scenes,
    raycast,
    raycast_triton,
)
from spatial_ttt.scenes.scene import PartKind  # noqa: E402
from spatial_ttt.scenes.shading import BACKGROUND  # noqa: E402
from tests.scenes.solids import make_camera, make_parts, random_camera, random_parts  # noqa: E402

BOX, CYLINDER, ELLIPSOID = PartKind.BOX, PartKind.CYLINDER, PartKind.ELLIPSOID
WALL = (BOX, (0.0, 2.5, 0.0), (9.0, 0.5, 9.0))


def cast(*solids, size=(64, 48), samples=1, yaw=0.0):
    cameras = pack_cameras([make_camera(*size)], size)
    return raycast(pack_scenes([make_parts(*solids, yaw=yaw)]), cameras, samples, torch.float64)


def test_a_wall_at_two_metres_has_depth_two() -> None:
    layers = cast(WALL)
    assert layers.rgb.shape == (1, 1, 48, 64, 3) and layers.rgb.dtype == torch.uint8
    assert (layers.object_id == 1).all()
    torch.testing.assert_close(layers.depth, torch.full_like(layers.depth, 2.0))


def test_round_solids_have_their_depths_and_silhouettes() -> None:
    ball = cast((ELLIPSOID, (0.0, 2.0, 0.0), (0.5, 0.5, 0.5)), size=(201, 201))
    edge = 201 * 0.5 / math.sqrt(2.0**2 - 0.5**2)
    assert int(ball.object_id.sum()) == pytest.approx(math.pi * edge**2, rel=0.004)
    assert float(ball.depth[0, 0, 100, 100]) == pytest.approx(1.5, abs=1e-6)
    drum = cast((CYLINDER, (0.0, 3.0, 0.0), (0.5, 0.5, 0.4)), size=(201, 201))
    assert float(drum.depth[0, 0, 100, 100]) == pytest.approx(2.5, abs=1e-6)
    column = drum.object_id[0, 0, :, 100]  # the near rim is 0.4 above, 2.5 away
    assert int(column.sum()) == pytest.approx(2 * 201 * 0.4 / 2.5, abs=1.5)


def test_what_misses_shows_the_background() -> None:
    layers = cast((BOX, (0.0, -3.0, 0.0), (1.0, 1.0, 1.0)))
    assert (layers.object_id == 0).all() and (layers.depth == 0).all()
    assert (layers.rgb == torch.tensor(BACKGROUND)).all()


def test_padding_draws_nothing_and_scenes_do_not_mix() -> None:
    parts = [random_parts(1, 30), random_parts(2, 4)]
    walks = [random_camera(3, 2, 32, 24), random_camera(4, 2, 32, 24)]
    together = raycast(pack_scenes(parts), pack_cameras(walks, (32, 24)))
    for index in range(2):
        alone = raycast(
            pack_scenes(parts[index : index + 1]), pack_cameras(walks[index : index + 1], (32, 24))
        )
        np.testing.assert_array_equal(together.rgb[index], alone.rgb[0])
        np.testing.assert_array_equal(together.object_id[index], alone.object_id[0])


def test_samples_keep_plain_pixels_and_smooth_edges() -> None:
    box = (BOX, (0.25, 3.0, 0.125), (0.26, 1.0, 0.125))
    hard, soft = cast(box), cast(box, samples=2)
    np.testing.assert_array_equal(soft.rgb[0, 0, :, :30], hard.rgb[0, 0, :, :30])
    between = soft.rgb[0, 0, 20, 31].int()  # the left edge cuts column 31
    sides = hard.rgb[0, 0, 20, [29, 34]].int()
    assert (between > sides.amin(0)).all() and (between < sides.amax(0)).all()


def test_mistakes_are_named() -> None:
    scenes = pack_scenes([random_parts(1, 3)])
    walks = [random_camera(1, 2), random_camera(2, 3)]
    with pytest.raises(SceneError, match="equally many frames"):
        pack_cameras(walks, (8, 6))
    cameras = pack_cameras(walks[:1], (8, 6))
    with pytest.raises(ConfigError, match="1, 2 or 4 samples"):
        raycast_triton(scenes, cameras, samples=3)
    two = replace(cameras, poses=cameras.poses.repeat(2, 1, 1, 1))
    with pytest.raises(ConfigError, match="1 scenes and 2 cameras"):
        raycast_triton(scenes, two)


def check(result: dict) -> None:
    assert result["objects"] >= 5
    assert result["ids_differ"] < 1e-3
    assert result["depth_differs"] < 1e-3
    assert result["color_differs"] < 3e-3
    assert result["counts_differ"] == result["few_counts_differ"] == 0
    assert result["short_ids_differ"] == 0
    assert result["short_depth_differs"] < 1e-3


@pytest.mark.parametrize("samples", [1, 2])
def test_triton_matches_the_reference_in_the_interpreter(samples: int) -> None:
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-m", "tests.scenes.compare_triton", "cpu", str(samples)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    check(json.loads(done.stdout))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("samples", [1, 2])
def test_triton_matches_the_reference_on_a_gpu(samples: int) -> None:
    from tests.scenes.compare_triton import compare

    check(compare("cuda", samples, (128, 96), (300, 1, 77)))
