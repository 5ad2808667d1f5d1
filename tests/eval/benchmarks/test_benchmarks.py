"""Reading benchmarks from disk: what is right is read whole, what is wrong is named."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from spatial_ttt.errors import ConfigError, DataError
from spatial_ttt.eval.benchmarks import load_benchmark, read_questions
from spatial_ttt.video import write_mp4
from tests.eval.clips import write_vsc, write_vsi_bench
from tests.eval.toy import place_pictures

SHARED = Path(__file__).parents[3] / "../shared/real"


@pytest.fixture
def vsi(tmp_path: Path) -> Path:
    return write_vsi_bench(tmp_path / "vsi")


def edit(path: Path, change: Any) -> None:
    """Apply `change(rows)` to a JSONL file."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_vsi_bench_is_read_whole(vsi: Path):
    benchmark = load_benchmark("vsi-bench", vsi)
    assert len(benchmark.items) == 30 and not benchmark.is_complete
    first = benchmark.items[0]
    assert (first.item_id, first.kind, first.answer) == ("0", "number", "4")
    assert first.clip.paths[0] == vsi / "arkitscenes/a.mp4"
    assert benchmark.revision.startswith("sha256:")
    assert len(benchmark.only({"scene": "a"}).items) == 10
    with pytest.raises(DataError, match="no item matches"):
        benchmark.only({"scene": "zzz"})


def test_snapshot_name_is_the_revision(tmp_path: Path):
    vsi = write_vsi_bench(tmp_path / "snapshots" / "0123456789abcdef" / "data")
    assert load_benchmark("vsi-bench", vsi).revision.startswith("0123456789abcdef, sha256:")


def test_unknown_benchmark_and_missing_folder(tmp_path: Path):
    with pytest.raises(ConfigError, match="known: vsi-bench"):
        load_benchmark("vsi", tmp_path)
    with pytest.raises(DataError, match="does not exist; download nyu-visionx/VSI-Bench"):
        load_benchmark("vsi-bench", tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has none of test\.jsonl"):
        load_benchmark("vsi-bench", tmp_path)


def test_missing_video_is_named(vsi: Path):
    (vsi / "arkitscenes/b.mp4").rename(vsi / "arkitscenes/b.mp4.incomplete")
    with pytest.raises(DataError, match=r"1 of 3 files are missing .*b\.mp4.*unfinished download"):
        load_benchmark("vsi-bench", vsi)
    assert len(load_benchmark("vsi-bench", vsi, only={"scene": "a"}).items) == 10


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.97])
def test_half_downloaded_video_is_refused(vsi: Path, share: float):
    path = vsi / "arkitscenes/b.mp4"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=r"1 of 3 files are damaged or half-downloaded .*b\.mp4"):
        load_benchmark("vsi-bench", vsi)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.append(rows[3]), r"gives 1 ids more than once \(first: '3', 2 times\)"),
        (lambda rows: rows[4].update(ground_truth="E"), "line 5: 'ground_truth' must be one of A"),
        (lambda rows: rows[4].update(options=["x", "y"]), "options must be lettered"),
        (lambda rows: rows[4].update(options=None), "options must be lettered"),
        (lambda rows: rows[0].update(ground_truth="four"), "line 1: 'ground_truth' must be a num"),
        (lambda rows: rows[0].update(ground_truth="-1"), "must be a number of at least 0"),
        (lambda rows: rows[0].update(question_type="mood"), "has no question type 'mood'"),
        (lambda rows: rows[0].pop("scene_name"), "line 1: 'scene_name' must be text"),
        (lambda rows: rows.clear(), "holds no records"),
    ],
)
def test_bad_rows_are_named(vsi: Path, change: Any, message: str):
    edit(vsi / "test.jsonl", change)
    with pytest.raises(DataError, match=message):
        load_benchmark("vsi-bench", vsi)


def test_torn_question_file_is_refused(vsi: Path):
    path = vsi / "test.jsonl"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(DataError, match=r"line 30 is no JSON.*downloaded to its end"):
        load_benchmark("vsi-bench", vsi)


def test_vsc_and_its_streaming_queries(tmp_path: Path):
    folder = write_vsc(tmp_path / "vsc")
    (plain,) = load_benchmark("vsc", folder).items
    assert (plain.answer, plain.stream_minutes, plain.ask_time_s) == ("3", 10.0, None)
    queries = load_benchmark("vsc-streaming", folder).items
    assert [(item.ask_time_s, item.answer) for item in queries] == [(0.5, "1"), (2, "2"), (3, "3")]
    assert len({item.item_id for item in queries}) == 3
    edit(folder / "test.jsonl", lambda rows: rows[1]["answers"].pop())
    with pytest.raises(DataError, match="3 query_times but 2 answers"):
        load_benchmark("vsc-streaming", folder)


def test_vsr(tmp_path: Path):
    folder = write_vsc(tmp_path / "vsr")
    row = {
        "video_path": "10mins/0.mp4",
        "question": "These are frames of a video.\nIn which order did the duck appear?",
        "options": ["A. Bed, Chair", "B. Chair, Bed"],
        "answer": "B",
        "type": "10mins",
    }
    (folder / "test.jsonl").write_text(json.dumps(row))
    (item,) = load_benchmark("vsr", folder).items
    assert (item.kind, item.answer, item.stream_minutes) == ("choice", "B", 10.0)


def write_procedural(folder: Path, *, in_tar: bool) -> Path:
    folder.mkdir()
    write_mp4(folder / "0.mp4", place_pictures([0, 1, 2, 3]), fps=2.0)
    video = "0.mp4"
    if in_tar:
        with tarfile.open(folder / "test-000000.tar", "w") as archive:
            archive.add(folder / "0.mp4", arcname="0.mp4")
        (folder / "0.mp4").unlink()
        video = "test-000000.tar/0.mp4"
    turns = [{"from": "human", "value": "<video>\nHow many?"}, {"from": "gpt", "value": "3"}]
    shared = {"video": video, "conversations": turns}
    rows = [
        shared,  # a description: no item
        shared | {"question_type": "object_counting", "ground_truth": "3", "visible_until_s": 1.0},
        shared | {"question_type": "vsc", "ground_truth": "4"},
    ]
    (folder / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize("in_tar", [False, True])
def test_procedural(tmp_path: Path, in_tar: bool):
    folder = write_procedural(tmp_path / "test", in_tar=in_tar)
    counting, stream = load_benchmark("procedural", tmp_path).items
    assert counting.prompt == "How many?" and counting.ask_time_s == 1.0
    assert stream.kind == "number" and stream.ask_time_s is None
    if in_tar:
        edit(folder / "examples.jsonl", lambda rows: rows[1].update(video="test-000000.tar/1.mp4"))
        with pytest.raises(DataError, match=r"holds no 1\.mp4"):
            load_benchmark("procedural", tmp_path)


def test_streaming_queries_of_procedural_counts(tmp_path: Path):
    folder = write_procedural(tmp_path / "test", in_tar=False)
    queries = {"query_times": [0.5, 1.5], "query_answers": [2, 4]}
    edit(folder / "examples.jsonl", lambda rows: rows[2].update(queries))
    items = load_benchmark("procedural", tmp_path).items
    asked = [(i.question_type, i.ask_time_s, i.answer) for i in items[2:]]
    assert asked == [("vsc_streaming", 0.5, "2"), ("vsc_streaming", 1.5, "4")]
    edit(folder / "examples.jsonl", lambda rows: rows[2].update(query_answers=[2]))
    with pytest.raises(DataError, match="2 query_times, 1 query_answers"):
        load_benchmark("procedural", tmp_path)


def test_questions_of_either_format_for_baselines(vsi: Path, tmp_path: Path):
    folder = write_procedural(tmp_path / "test", in_tar=False)
    assert len(read_questions(folder / "examples.jsonl")) == 2
    assert len(read_questions(vsi / "test.jsonl")) == 30


@pytest.mark.skipif(not SHARED.exists(), reason="the real material is not here")
class TestMindCube:
    def test_sample_is_read_whole(self):
        benchmark = load_benchmark("mindcube", SHARED / "mindcube_sample")
        settings = [item.question_type for item in benchmark.items]
        assert {name: settings.count(name) for name in settings} == {
            "among": 4,
            "rotation": 4,
            "around": 4,
        }
        item = benchmark.items[0]
        assert item.clip.is_images and len(item.clip.paths) == 4 and item.max_new_tokens == 4096

    def copy(self, tmp_path: Path) -> Path:
        source = SHARED / "mindcube_sample"
        for path in source.rglob("*"):
            target = tmp_path / path.relative_to(source)
            if path.is_dir():
                target.mkdir(exist_ok=True)
            else:
                target.write_bytes(path.read_bytes())
        return tmp_path

    @pytest.mark.parametrize("suffix", ["png", "jpg"])
    def test_half_downloaded_image_is_refused(self, tmp_path: Path, suffix: str):
        folder = self.copy(tmp_path)
        items = load_benchmark("mindcube", folder).items
        image = next(
            path for item in items for path in item.clip.paths if path.suffix == f".{suffix}"
        )
        image.write_bytes(image.read_bytes()[:-5000])
        with pytest.raises(DataError, match=f"damaged or half-downloaded .*{image.name}"):
            load_benchmark("mindcube", folder)

    def test_missing_image_is_named(self, tmp_path: Path):
        folder = self.copy(tmp_path)
        load_benchmark("mindcube", folder).items[5].clip.paths[0].unlink()
        with pytest.raises(DataError, match="files are missing"):
            load_benchmark("mindcube", folder)
