"""Frames side by side with labels where things are."""

import io

import numpy as np
import pytest
from PIL import Image

from spatial_ttt.scenes.contact_sheet import contact_sheet, project, spread_frames
from spatial_ttt.scenes.homes import make_home
from spatial_ttt.scenes.renderer import Renderer
from spatial_ttt.scenes.walk import walk


@pytest.fixture(scope="module")
def shot():
    home = make_home(5, num_rooms=1)
    camera = walk(home, 0, num_frames=9, width=160, height=120)
    with Renderer(160, 120) as renderer:
        layers = renderer.render(home.parts, camera)
        return home, camera, layers, renderer.visibility(home.parts, camera)


def test_projection_meets_the_renderers_ids(shot):
    home, camera, layers, _ = shot
    met = 0
    for item in home.scene.objects:
        for index in range(len(camera.times)):
            rows, columns = np.nonzero(layers.object_id[index] == item.object_id)
            x, y, depth = project(item.box.center[None], camera, index, (160, 120))[0]
            inside = 0 <= x < 160 and 0 <= y < 120 and depth > 0
            if inside and len(rows) > 200:
                # The middle of a thing in whole view lies within the rectangle of its pixels.
                met += columns.min() <= x <= columns.max() and rows.min() <= y <= rows.max()
    assert met >= 8


def test_the_sheet_has_a_place_for_every_frame(shot):
    home, camera, layers, visibility = shot
    frames = spread_frames(camera, 6)
    assert frames == [0, 2, 3, 5, 6, 8]
    png = contact_sheet(home.scene, camera, visibility, frames, layers.rgb[frames])
    sheet = np.asarray(Image.open(io.BytesIO(png)))
    assert sheet.shape == (2 * 120 + 6, 4 * 160 + 18, 3)
    yellow = (sheet[..., 0] > 220) & (sheet[..., 1] > 220) & (sheet[..., 2] < 60)
    plain = (layers.rgb[..., 0] > 220) & (layers.rgb[..., 1] > 220) & (layers.rgb[..., 2] < 60)
    assert yellow[:120].any() and yellow[126:].any() and not plain.any()
    assert (sheet[130:, 2 * 166 :] == 255).all()  # two places of the second row stay empty
