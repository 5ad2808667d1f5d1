"""Settings of long streams."""

import pytest

from spatial_ttt.errors import ConfigError
from spatial_ttt.scenes.long_plan import LongConfig, stream_tasks


def test_streams_have_names_and_seeds_of_their_own():
    tasks = [
        task
        for seed in (0, 1)
        for split in ("train", "val")
        for task in stream_tasks(LongConfig(streams=3, minutes=10, seed=seed, split=split))
    ]
    assert tasks[0].name == "stream-train-000000"
    assert len({(task.split, task.seed) for task in tasks}) == 12


def test_frames_of_a_stream():
    assert LongConfig(streams=1, minutes=240, fps=2).num_frames == 28_800


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"streams": 0}, "streams run"),
        ({"minutes": 1}, "minutes run from 3"),
        ({"minutes": 241}, "minutes run"),
        ({"split": "dev"}, "split is one of"),
        ({"seed": 2048}, "seed runs"),
        ({"revisit_share": 0.9}, "revisit_share"),
        ({"fps": 0}, "fps is above 0"),
        ({"num_queries": -1}, "at least 0"),
        ({"width": 3}, "even sides"),
    ],
)
def test_wrong_settings(fields, message):
    with pytest.raises(ConfigError, match=message):
        LongConfig(**({"streams": 1, "minutes": 10} | fields))
