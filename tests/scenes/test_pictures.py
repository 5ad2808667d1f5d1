"""Every picture lies where it belongs, and the chosen frames show most."""

from __future__ import annotations

import numpy as np
import pytest

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.pictures import choose_frames, color_depth, color_ids, lay_out
from spatial_ttt.scenes.scene import Visibility


def plain(value: int, height: int = 6, width: int = 8) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_pictures_lie_in_rows() -> None:
    sheet = lay_out([plain(10), plain(20), plain(30)], columns=2, gap=2)
    assert sheet.shape == (2 * 8 + 2, 2 * 10 + 2, 3)
    assert (sheet[2:8, 2:10] == 10).all() and (sheet[2:8, 12:20] == 20).all()
    assert (sheet[10:16, 2:10] == 30).all() and (sheet[10:16, 12:20] == 255).all()


def test_labels_are_written_above() -> None:
    bare = lay_out([plain(10, 6, 40)] * 2, columns=2)
    labelled = lay_out([plain(10, 6, 40)] * 2, columns=2, labels=["1.5 s", ""])
    assert labelled.shape[0] == bare.shape[0] + 18
    assert (labelled[4:22, 4:44] < 128).any() and (labelled[4:22, 48:88] == 255).all()


def test_mistakes_are_named() -> None:
    with pytest.raises(SceneError, match="one size"):
        lay_out([plain(1), plain(1, 7)])
    with pytest.raises(SceneError, match="0 pictures"):
        lay_out([])
    with pytest.raises(SceneError, match="1 labels for 2 pictures"):
        lay_out([plain(1), plain(2)], labels=["one"])


def test_ids_have_colors_of_their_own() -> None:
    ids = np.arange(60, dtype=np.int32).reshape(6, 10)
    colors = color_ids(ids)
    assert len(np.unique(colors.reshape(-1, 3), axis=0)) == 60
    np.testing.assert_array_equal(color_ids(ids[:1]), colors[:1])


def test_depth_is_light_when_near() -> None:
    shades = color_depth(np.array([[0.0, 1.0, 4.0, 20.0]]), farthest=8.0)[0, :, 0]
    assert shades.tolist() == [0, 223, 127, 0]


def test_chosen_frames_show_every_object() -> None:
    pixels = np.zeros((6, 4), np.int32)
    pixels[1, [0, 1]], pixels[3, [1, 2]], pixels[4, 3], pixels[5, 0] = 2000, 3000, 1500, 900
    seen = Visibility(np.arange(1, 5, dtype=np.int32), pixels, np.arange(6.0))
    assert choose_frames(seen, 3) == [1, 3, 4]
    assert choose_frames(seen, 1) == [1]
    assert choose_frames(seen, 6) == [1, 3, 4]
    nothing = Visibility(seen.object_ids, np.zeros((2, 4), np.int32), np.arange(2.0))
    assert choose_frames(nothing, 3) == []
