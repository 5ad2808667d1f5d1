"""One pass over a walk gives every clip and what was visible."""

from __future__ import annotations

import numpy as np
import pytest

from spatial_ttt.scenes.filming import FRAMES_PER_PASS, film
from spatial_ttt.scenes.homes import make_home
from spatial_ttt.scenes.renderer import Renderer
from spatial_ttt.scenes.walk import walk
from spatial_ttt.video import EncodeOptions, open_source


@pytest.fixture(scope="module")
def shot():
    home = make_home(5, num_rooms=1)
    camera = walk(home, 0, duration_s=10.0, fps=6.0, width=96, height=64)
    with Renderer(96, 64) as renderer:
        layers = renderer.render(home.parts, camera)
        visibility = renderer.visibility(home.parts, camera)
        made = film(
            renderer, home.parts, camera, ((96, 64), (48, 32)), options=EncodeOptions(crf=1)
        )
    return camera, layers, visibility, made


def test_clips_show_the_drawn_frames_at_the_cameras_times(shot):
    camera, layers, _, made = shot
    assert len(camera.times) > FRAMES_PER_PASS  # more than one pass
    for clip, step in zip(made.clips, (1, 2), strict=True):
        with open_source(clip) as source:
            frames = list(source)
        assert [frame.time for frame in frames] == pytest.approx(camera.times, abs=1e-4)
        for frame, drawn in zip(frames, layers.rgb, strict=True):
            height, width = drawn.shape[0] // step, drawn.shape[1] // step
            small = drawn.reshape(height, step, width, step, 3).mean((1, 3))
            assert np.abs(frame.pixels - small).mean() < 5


def test_visibility_is_the_renderers_own(shot):
    _, _, visibility, made = shot
    assert np.array_equal(made.visibility.object_ids, visibility.object_ids)
    assert np.array_equal(made.visibility.pixels, visibility.pixels)
    assert np.array_equal(made.visibility.times, visibility.times)
