"""Colour and size of what comes out of decoding."""

import av
import numpy as np
import pytest

from spatial_ttt.errors import VideoError
from spatial_ttt.video.convert import RgbConverter, check_size, resize_pixels

RED = np.full((16, 24, 3), (255, 0, 0), np.uint8)


def test_colours_survive_the_way_through_yuv():
    frame = av.VideoFrame.from_ndarray(RED, "rgb24").reformat(format="yuv444p")
    assert np.abs(RgbConverter(None)(frame).astype(int) - RED).max() <= 3


def test_decoder_side_resize_keeps_a_flat_picture_flat():
    frame = av.VideoFrame.from_ndarray(RED, "rgb24")
    out = RgbConverter((9, 13))(frame)
    assert out.shape == (9, 13, 3)
    assert np.abs(out.astype(int) - RED[0, 0]).max() <= 3


def test_resizing_arrays():
    assert resize_pixels(RED, None) is RED and resize_pixels(RED, (16, 24)) is RED
    assert resize_pixels(RED, (8, 12)).shape == (8, 12, 3)
    assert (resize_pixels(RED, (8, 12)) == RED[:8, :12]).all()
    with pytest.raises(VideoError, match="height, width"):
        check_size((3, 0))
