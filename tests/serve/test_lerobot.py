"""LeRobot datasets, written here as their format describes: one file per episode, and joined files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from spatial_ttt.errors import DataError
from spatial_ttt.serve.lerobot import LeRobotDataset
from spatial_ttt.serve.terminal import open_frames
from spatial_ttt.video.writing import write_mp4

CAMERA = "observation.images.top"


def grey(values):
    return [np.full((48, 64, 3), value, np.uint8) for value in values]


def write_info(folder, version, **more):
    features = {
        CAMERA: {"dtype": "video", "shape": [48, 64, 3]},
        "observation.images.wrist": {"dtype": "video", "shape": [48, 64, 3]},
        "action": {"dtype": "float32", "shape": [6]},
    }
    info = {"codebase_version": version, "total_episodes": 2, "fps": 10, "features": features}
    (folder / "meta").mkdir(parents=True)
    (folder / "meta" / "info.json").write_text(json.dumps(info | more))


def write_video(path, values):
    path.parent.mkdir(parents=True)
    write_mp4(str(path), grey(values), fps=10)


@pytest.fixture
def separate(tmp_path):
    name = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    write_info(tmp_path, "v2.1", chunks_size=1, video_path=name)
    for episode, values in enumerate(([10, 20, 30], [100, 110, 120, 130])):
        path = name.format(episode_chunk=episode, video_key=CAMERA, episode_index=episode)
        write_video(tmp_path / path, values)
    return tmp_path


def levels(frames):
    return [(round(f.time, 3), round(float(f.pixels.mean()), -1)) for f in frames]


def test_an_episode_of_its_own_file(separate):
    dataset = LeRobotDataset(separate)
    assert (dataset.cameras, dataset.num_episodes) == ([CAMERA, "observation.images.wrist"], 2)
    expected = [(0.0, 100), (0.1, 110), (0.2, 120), (0.3, 130)]
    assert levels(dataset.frames(1)) == expected
    assert levels(dataset.frames(1, CAMERA, fps=5)) == expected[::2]
    assert levels(open_frames(f"lerobot:{separate}#0", 10)) == [(0.0, 10), (0.1, 20), (0.2, 30)]


def test_an_episode_within_a_joined_file(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    name = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    write_info(tmp_path, "v3.0", video_path=name)
    write_video(tmp_path / name.format(video_key=CAMERA, chunk_index=0, file_index=3),
                [10, 20, 30, 100, 110, 120, 130])  # fmt: skip
    columns = {
        "chunk_index": [0, 0], "file_index": [3, 3], "from_timestamp": [0.0, 0.3], "to_timestamp": [0.3, 0.7],
    }  # fmt: skip
    table = {"episode_index": [0, 1]} | {f"videos/{CAMERA}/{k}": v for k, v in columns.items()}
    episodes = tmp_path / "meta" / "episodes" / "chunk-000"
    episodes.mkdir(parents=True)
    parquet.write_table(pyarrow.table(table), episodes / "file-000.parquet")
    dataset = LeRobotDataset(tmp_path)
    assert levels(dataset.frames(0)) == [(0.0, 10), (0.1, 20), (0.2, 30)]
    assert levels(dataset.frames(1)) == [(0.0, 100), (0.1, 110), (0.2, 120), (0.3, 130)]


def test_mistakes_are_named(separate, tmp_path):
    dataset = LeRobotDataset(separate)
    with pytest.raises(DataError, match="episodes 0 to 1, not 2"):
        dataset.clip(2)
    with pytest.raises(DataError, match=r"no camera 'side'; there are observation"):
        dataset.clip(0, "side")
    with pytest.raises(DataError, match="a number"):
        open_frames(f"lerobot:{separate}#x", 10)
    with pytest.raises(DataError, match="is no LeRobot dataset"):
        LeRobotDataset(tmp_path / "nowhere")
    info = separate / "meta" / "info.json"
    info.write_text(info.read_text().replace("v2.1", "v1.6"))
    with pytest.raises(DataError, match=r"'v1\.6'"):
        LeRobotDataset(separate)
