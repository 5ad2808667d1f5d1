"""Pages to look at, from a seed, a built shard and a scan."""

from __future__ import annotations

import html
import json

import pytest

from spatial_ttt.errors import DataError
from spatial_ttt.scenes.build import build
from spatial_ttt.scenes.build_plan import BuildConfig
from spatial_ttt.scenes.homes import make_home
from spatial_ttt.scenes.scene_json import scene_to_json
from spatial_ttt.scenes.show import page, read_subject, write_page

CONFIG = BuildConfig(
    train_scenes=1,
    val_scenes=0,
    test_scenes=0,
    seed=9,
    fps=2.0,
    duration_s=8.0,
    max_rooms=1,
    width=96,
    height=64,
    small_sizes=(),
)


def test_a_page_of_a_built_scene(tmp_path):
    build(CONFIG, tmp_path)
    name = f"{tmp_path}/96x64/train/train-000000.tar/train-0000000"
    subject = read_subject(name)
    assert subject.walk is not None and subject.walk.pixels.shape == (12, 64, 96, 3)
    write_page(name, tmp_path / "pages" / "a.html")
    text = (tmp_path / "pages" / "a.html").read_text()
    assert "<svg" in text and "data:image/png;base64," in text
    assert subject.scene.scene_id in text
    assert html.escape(subject.description.splitlines()[0]) in text
    assert text.count("<tr>") == len(subject.questions) > 0
    with pytest.raises(DataError, match="holds no train-0000007"):
        read_subject(f"{tmp_path}/96x64/train/train-000000.tar/train-0000007")


def test_a_page_of_a_scan_has_no_frames(tmp_path):
    path = tmp_path / "scans.json"
    scenes = [make_home(seed).scene for seed in (1, 2)]
    path.write_text(json.dumps([scene_to_json(scene) for scene in scenes]))
    text = page(read_subject(f"{path}#{scenes[1].scene_id}"))
    assert "<svg" in text and "<img" not in text and scenes[1].scene_id in text
    with pytest.raises(DataError, match="holds 2 scenes"):
        read_subject(str(path))
    with pytest.raises(DataError, match="name one as"):
        read_subject(f"{path}#nowhere")
