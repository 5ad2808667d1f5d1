"""Order and times of pictures that carry none; arrays brought to one form."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spatial_ttt.errors import VideoError
from spatial_ttt.video.options import ReadOptions
from spatial_ttt.video.stills import as_clip, list_images, natural_key, read_image, still_times


def test_natural_order():
    names = ["a10b2.png", "a2.png", "a10b10.png", "b1.png", "a1.png", "1.png"]
    ordered = sorted(map(Path, names), key=natural_key)
    assert [path.name for path in ordered] == [
        *("1.png", "a1.png", "a2.png", "a10b2.png", "a10b10.png", "b1.png")
    ]


def test_images_turn_upright_and_lose_their_alpha(tmp_path):
    pixels = np.zeros((4, 6, 4), np.uint8)
    pixels[0] = 255
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    image.save(tmp_path / "a.png", exif=exif)
    upright = read_image(tmp_path / "a.png")
    assert upright.shape == (6, 4, 3)
    assert (upright[:, -1] == 255).all() and (upright[:, :-1] == 0).all()
    assert list_images(tmp_path) == [tmp_path / "a.png"]
    with pytest.raises(VideoError, match="does not exist"):
        read_image(tmp_path / "b.png")


def test_times_of_stills():
    assert list(still_times(3, 2.0, ReadOptions())) == [0, 0.5, 1]
    assert list(still_times(3, 2.0, ReadOptions(input_fps=4))) == [0, 0.25, 0.5]
    assert list(still_times(1, None, ReadOptions())) == [0]
    assert list(still_times(2, None, ReadOptions(times=(1.0, 5.0)))) == [1, 5]


def test_channels_last_wins_when_both_fit():
    clip = np.zeros((2, 3, 5, 3), np.uint8)
    clip[0, 1, 2] = 9
    assert np.array_equal(as_clip(clip), clip)
    floats = np.array([0.0, 0.5, 1.0]).repeat(2 * 4 * 4).reshape(1, 3, 4, 8)
    assert as_clip(floats)[0, 0, 0].tolist() == [0, 128, 255]
