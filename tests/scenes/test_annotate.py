"""Questions on scans from their annotations."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from spatial_ttt.errors import ConfigError, DataError
from spatial_ttt.scenes.annotate import (
    annotate,
    benchmark_scenes,
    check_video_name,
    excluded_scenes,
    parse_scene_list,
)
from spatial_ttt.scenes.homes import make_home
from spatial_ttt.scenes.scene_json import scene_to_json

REAL = Path(__file__).parents[2] / "../shared/real"


@pytest.fixture
def annotations(tmp_path):
    path = tmp_path / "scenes.json"
    path.write_text(json.dumps([scene_to_json(make_home(seed).scene) for seed in (1, 2, 3)]))
    return path


def test_every_scene_gets_a_description_and_questions(annotations):
    samples = annotate(annotations, excluded=frozenset(), video_name="clips/{scene_id}.mkv")
    assert len({sample.videos for sample in samples}) == 3
    assert all(sample.videos[0].startswith("clips/home-") for sample in samples)
    types = {sample.question_type for sample in samples}
    assert {"scene_description", "object_abs_distance", "object_rel_distance"} <= types
    assert "obj_appearance_order" not in types  # needs to know when things were seen
    assert {sample.visible_until_s for sample in samples} == {None}
    assert annotate(annotations, excluded=frozenset(), video_name="clips/{scene_id}.mkv") == samples


def test_excluded_scenes_are_left_out(annotations, tmp_path):
    first = make_home(1).scene.scene_id
    (tmp_path / "list.txt").write_text(f"# held back\n{first}  # why\n\n")
    excluded = excluded_scenes(tmp_path / "list.txt", with_benchmark_scenes=False)
    assert excluded == benchmark_scenes() | {first}
    samples = annotate(annotations, excluded=excluded)
    assert len({sample.videos for sample in samples}) == 2
    everything = frozenset(make_home(seed).scene.scene_id for seed in (1, 2, 3))
    with pytest.raises(DataError, match="all 3 scenes"):
        annotate(annotations, excluded=everything)
    with pytest.raises(DataError, match="cannot read"):
        excluded_scenes(tmp_path / "absent.txt", with_benchmark_scenes=True)


@pytest.mark.skipif(not REAL.exists(), reason="the real annotations are not here")
def test_no_benchmark_scene_is_trained_on():
    questions = (REAL / "vsi_bench_arkitscenes.jsonl").read_text().splitlines()
    assert {json.loads(line)["scene_name"] for line in questions} <= benchmark_scenes()
    with pytest.raises(DataError, match="never trained on"):
        annotate(REAL / "vsi_bench_arkitscenes_meta.json", excluded=benchmark_scenes())
    assert len(annotate(REAL / "vsi_bench_arkitscenes_meta.json", excluded=frozenset())) > 500


def test_all_sources_of_the_benchmark_are_listed():
    """As many as there are: ARKitScenes' part, and the validation splits of ScanNet v2 and ScanNet++."""
    kinds = {"arkitscenes": r"\d{8}", "scannet": r"scene\d{4}_\d{2}", "scannetpp": r"[0-9a-f]{10}"}
    found = {
        name: sum(bool(re.fullmatch(form, scene)) for scene in benchmark_scenes())
        for name, form in kinds.items()
    }
    assert found == {"arkitscenes": 150, "scannet": 312, "scannetpp": 50}
    assert len(benchmark_scenes()) == sum(found.values())


def test_video_names_and_lists():
    check_video_name("a/{scene_id}.mp4")
    for wrong in ("video.mp4", "{scene}.mp4", "{scene_id}{x}", "{"):
        with pytest.raises(ConfigError):
            check_video_name(wrong)
    assert parse_scene_list("a\n#b\n\n c #d\n") == {"a", "c"}
