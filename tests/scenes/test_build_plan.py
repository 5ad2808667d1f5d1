"""Settings, splits and shards of a build."""

from __future__ import annotations

from pathlib import Path

import pytest

from spatial_ttt.errors import ConfigError, DataError
from spatial_ttt.scenes.build_plan import (
    BuildConfig,
    check_same_settings,
    clip_folder,
    parse_part,
    parse_range,
    parse_sizes,
    shard_tasks,
)
from spatial_ttt.scenes.homes import split_of


def config(**fields):
    return BuildConfig(**({"train_scenes": 20, "val_scenes": 3, "test_scenes": 0} | fields))


def test_shards_hold_every_scene_once_with_seeds_of_their_split():
    tasks = list(shard_tasks(config(scenes_per_shard=8)))
    assert [task.name for task in tasks] == [
        *("train-000000", "train-000001", "train-000002", "val-000000")
    ]
    assert [len(task.scenes) for task in tasks] == [8, 8, 4, 3]
    scenes = [scene for task in tasks for scene in task.scenes]
    assert all(split_of(scene.seed) == scene.split for scene in scenes)
    assert scenes[-1].key == "val-0000002"


def test_seeds_of_builds_and_splits_never_meet():
    seen: set[int] = set()
    for seed in (0, 1, 32767):
        for task in shard_tasks(config(seed=seed, test_scenes=7)):
            seeds = {scene.seed for scene in task.scenes}
            assert not seeds & seen
            seen |= seeds
    assert len(seen) == 3 * 30


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train_scenes": 0, "val_scenes": 0}, "at least 1 scene"),
        ({"train_scenes": -1}, "at least 1 scene"),
        ({"seed": 32768}, "seed runs from 0 to 32767"),
        ({"fps": 0}, "fps must be above 0"),
        ({"fps": 1, "duration_s": 0.5}, "long enough"),
        ({"min_rooms": 0}, "rooms run from 1 to 8"),
        ({"min_rooms": 5, "max_rooms": 4}, "rooms run"),
        ({"width": 481}, "even sides"),
        ({"small_sizes": ((0, 2),)}, "even sides"),
        ({"scenes_per_shard": 0}, "scenes_per_shard"),
        ({"min_fov_deg": 90, "max_fov_deg": 60}, "fields of view"),
    ],
)
def test_wrong_settings(fields, message):
    with pytest.raises(ConfigError, match=message):
        config(**fields)


def test_parsing_of_options():
    assert parse_part(None) == (0, 1) and parse_part("2/4") == (2, 4)
    for wrong in ("4/4", "1", "a/2", "-1/2", "1/"):
        with pytest.raises(ConfigError, match="i/n"):
            parse_part(wrong)
    assert parse_range("2-5") == (2, 5) and parse_range("3") == (3, 3)
    for wrong in ("", "a", "2-", "-3"):
        with pytest.raises(ConfigError, match="range"):
            parse_range(wrong)
    assert parse_sizes("480x352, 128x96,") == [(480, 352), (128, 96)]
    with pytest.raises(ConfigError, match="WIDTHxHEIGHT"):
        parse_sizes("480")


def test_a_size_named_twice_is_filmed_once():
    assert config(width=96, height=64, small_sizes=((48, 32), (96, 64))).sizes == (
        (96, 64),
        (48, 32),
    )


def test_settings_are_compared_by_name(tmp_path):
    path = tmp_path / "build.json"
    path.write_text('{"fps": 5.0}')
    check_same_settings(path, {"fps": 5.0})
    with pytest.raises(DataError, match=r"fps: 5\.0 there, 2 now"):
        check_same_settings(path, {"fps": 2})
    path.write_text("{")
    with pytest.raises(DataError, match="damaged"):
        check_same_settings(path, {})
    assert clip_folder(Path("out"), (128, 96), "val") == Path("out/128x96/val")
