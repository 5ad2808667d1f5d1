"""What is a frame and what is not."""

import numpy as np
import pytest

from spatial_ttt.errors import VideoError
from spatial_ttt.video import Frame, check_frame, check_pixels

GOOD = np.zeros((4, 6, 3), np.uint8)


def test_a_good_frame_is_returned_as_it_is():
    frame = Frame(GOOD, 1.5)
    assert check_frame(frame) is frame


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.full((4, 6, 3), np.nan, np.float32), "NaN"),
        (np.zeros((4, 6, 3), np.float32), "dtype float32, not uint8"),
        (np.zeros((4, 6, 3), np.int64), "dtype int64, not uint8"),
        (np.zeros((4, 6), np.uint8), r"shape \[4, 6\]"),
        (np.zeros((4, 6, 4), np.uint8), r"shape \[4, 6, 4\]"),
        (np.zeros((0, 6, 3), np.uint8), r"shape \[0, 6, 3\]"),
        ([[1, 2, 3]], "list, not a NumPy array"),
    ],
)
def test_wrong_pixels_say_what_they_are(pixels, message):
    with pytest.raises(VideoError, match=message):
        check_pixels(pixels)


@pytest.mark.parametrize("time", [float("nan"), float("inf"), -0.1])
def test_wrong_times(time):
    with pytest.raises(VideoError, match="finite seconds"):
        check_frame(Frame(GOOD, time))
