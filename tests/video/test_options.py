"""Reading options refuse what makes no sense."""

import pytest

from spatial_ttt.errors import ConfigError
from spatial_ttt.video import ReadOptions


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"on_corrupt": "ignore"}, "on_corrupt"),
        ({"drop": "newest"}, "drop"),
        ({"input_fps": 0}, "input_fps"),
        ({"input_fps": 1, "times": (0.0,)}, "give one"),
        ({"queue_frames": 0}, "queue_frames"),
        ({"max_reconnects": -1}, "max_reconnects"),
        ({"timeout_s": 0}, "timeout_s"),
    ],
)
def test_wrong_options(fields, message):
    with pytest.raises(ConfigError, match=message):
        ReadOptions(**fields)
