"""The runner with a real small model on real clips: ingest, forks, resuming, processes, controls."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spatial_ttt.errors import ConfigError, DataError
from spatial_ttt.eval.benchmarks import FrameSampling, load_benchmark
from spatial_ttt.eval.controls import CONTROLS, ControlSettings
from spatial_ttt.eval.evaluate import RunSettings, Worker, describe_run, plan, run_benchmark
from spatial_ttt.eval.predictions import Prediction, read_folder
from tests.eval.clips import PLACES, write_vsc, write_vsi_bench
from tests.eval.run_toy import SETTINGS
from tests.eval.toy import WINDOW, ToyModel

ROOT = Path(__file__).parents[2]
SHARED = ROOT / "../shared/real"
COUNTS = {scene: len(set(places)) for scene, places in PLACES.items()}


@pytest.fixture(scope="module")
def vsi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vsi_bench(tmp_path_factory.mktemp("vsi") / "data")


def run(vsi: Path, out: Path, model: ToyModel | None = None, **settings: object) -> dict[str, str]:
    """Item -> reply of the counting questions by scene, and of all others by id."""
    chosen = RunSettings(sampling=SETTINGS.sampling, **settings)  # type: ignore[arg-type]
    predictions = run_benchmark(model or ToyModel(), load_benchmark("vsi-bench", vsi), out, chosen)
    assert predictions is not None
    return {
        p.tags["scene"] if p.question_type == "object_counting" else p.item_id: p.reply
        for p in predictions
    }


def test_one_ingest_per_clip_and_every_question_on_a_fork(vsi: Path, tmp_path: Path):
    model = ToyModel()
    replies = run(vsi, tmp_path, model)
    assert len(replies) == 30
    assert len(model.opened) == 3  # one session per clip, not per question
    assert model.log.count("ask") == 30
    assert {p.num_frames for p in read_folder(tmp_path)} == {8}
    assert {scene: replies[scene] for scene in COUNTS} == {s: str(n) for s, n in COUNTS.items()}


def test_replies_are_kept_with_what_was_seen(vsi: Path, tmp_path: Path):
    run(vsi, tmp_path)
    first = read_folder(tmp_path)[0]
    assert first.num_frames == 8 and first.seen_s == pytest.approx(1.75)
    assert first.prompt.endswith("using a single word or phrase.")
    assert first.score().official == 1.0
    header = json.loads((tmp_path / "run.json").read_text())
    assert header["prompt_profile"] == "paper v1" and header["frame_times"] == "true"
    assert header["model"]["rule"] == "set of places" and header["mode"] == "streamed"


def test_a_finished_run_asks_nothing_again(vsi: Path, tmp_path: Path):
    run(vsi, tmp_path)
    before = (tmp_path / "predictions.jsonl").read_bytes()
    model = ToyModel()
    run(vsi, tmp_path, model)
    assert model.opened == [] and model.log == []
    assert (tmp_path / "predictions.jsonl").read_bytes() == before


def test_a_torn_line_is_asked_again(vsi: Path, tmp_path: Path):
    whole = run(vsi, tmp_path)
    path = tmp_path / "predictions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:10]) + lines[10][:37])
    model = ToyModel()
    assert run(vsi, tmp_path, model) == whole
    assert model.log.count("ask") == 20


def test_another_run_is_refused_the_folder(vsi: Path, tmp_path: Path):
    run(vsi, tmp_path)
    with pytest.raises(DataError, match=r"holds another run: .*control.*choose another --out"):
        run(vsi, tmp_path, control="blind")
    some = load_benchmark("vsi-bench", vsi, only={"scene": "a"})
    with pytest.raises(DataError, match="holds another run: items, num_items differ"):
        run_benchmark(ToyModel(), some, tmp_path, SETTINGS)


def test_a_killed_run_goes_on_where_it_was(vsi: Path, tmp_path: Path):
    command = [sys.executable, "-m", "tests.eval.run_toy", str(vsi), str(tmp_path / "killed")]
    process = subprocess.Popen([*command, "0.1"], cwd=ROOT)
    log = tmp_path / "killed" / "predictions.jsonl"
    deadline = time.monotonic() + 30
    while not log.exists() or log.read_text().count("\n") < 7:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    answered = log.read_text().count("\n")
    assert 7 <= answered < 30
    again = subprocess.run([*command, "0"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(again.stdout) == 30 - answered
    expected = run(vsi, tmp_path / "whole")
    killed = read_folder(tmp_path / "killed")
    assert [p.reply for p in killed] == [p.reply for p in read_folder(tmp_path / "whole")]
    assert len(killed) == len(expected) == 30


def test_two_processes_share_the_clips(vsi: Path, tmp_path: Path):
    command = [sys.executable, "-m", "tests.eval.run_toy", str(vsi), str(tmp_path / "two"), "0.01"]
    processes = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"RANK": str(rank), "WORLD_SIZE": "2"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    asked = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert asked == [20, 10]  # clips a and c, clip b
    run(vsi, tmp_path / "one")
    one, two = ((tmp_path / name / "predictions.jsonl") for name in ("one", "two"))
    assert [_said(p) for p in read_folder(two.parent)] == [
        _said(p) for p in read_folder(one.parent)
    ]
    assert not list((tmp_path / "two").glob("predictions.rank*"))


def _said(prediction: Prediction) -> tuple[str, str]:
    return prediction.item_id, prediction.reply


def test_a_dead_process_is_noticed(vsi: Path, tmp_path: Path):
    worker = Worker(rank=0, world_size=2, poll_s=0.01, patience_s=0.05)
    benchmark = load_benchmark("vsi-bench", vsi)
    with pytest.raises(DataError, match="10 replies are missing"):
        run_benchmark(ToyModel(), benchmark, tmp_path, SETTINGS, worker)


def test_streaming_questions_see_only_their_past(tmp_path: Path):
    benchmark = load_benchmark("vsc-streaming", write_vsc(tmp_path / "vsc"))
    model = ToyModel()
    settings = RunSettings(sampling=FrameSampling(fps=1.0, height=48, width=64))
    predictions = run_benchmark(model, benchmark, tmp_path / "out", settings)
    assert predictions is not None
    assert [(p.ask_time_s, p.reply, p.num_frames) for p in predictions] == [
        (0.5, "1", 1),
        (2.0, "2", 3),
        (3.0, "3", 4),
    ]
    assert len(model.opened) == 1
    assert all(p.score().official == 1.0 for p in predictions)


class TestControls:
    def counts(self, vsi: Path, out: Path, control: str, **numbers: int) -> dict[str, str]:
        settings = ControlSettings(**numbers)
        replies = run(vsi, out, control=control, control_settings=settings)
        return {scene: replies[scene] for scene in COUNTS}

    def test_each_does_what_it_says(self, vsi: Path, tmp_path: Path):
        counts = {
            name: self.counts(vsi, tmp_path / name, name)
            for name in CONTROLS
            if name not in ("memory_reset", "bounded_anchors", "segment_and_sum")
        }
        seen_last = {scene: str(len(set(p[-WINDOW:]))) for scene, p in PLACES.items()}
        plain = {"a": "4", "b": "2", "c": "4"}
        assert counts["none"] == counts["offline"] == counts["full_attention"] == plain
        assert counts["played_twice"] == plain  # a set does not double
        assert counts["blind"] == {"a": "0", "b": "0", "c": "0"}
        assert counts["one_frame"] == {"a": "1", "b": "1", "c": "1"}
        assert counts["memory_off"] == counts["window_only"] == seen_last != plain
        assert counts["other_memory"] == counts["other_clip"] == {"a": "2", "b": "4", "c": "4"}

    def test_segments_are_summed(self, vsi: Path, tmp_path: Path):
        summed = self.counts(vsi, tmp_path, "segment_and_sum", segment_frames=4)
        assert summed == {"a": "4", "b": "2", "c": "4"} | {"c": str(2 + 2)}
        parts = {p.tags["scene"]: p.parts for p in read_folder(tmp_path)}
        assert parts == {"a": ("2", "2"), "b": ("1", "1"), "c": ("2", "2")}

    def test_counting_controls_take_counting_questions_only(self, vsi: Path, tmp_path: Path):
        run(vsi, tmp_path, control="played_twice")
        predictions = read_folder(tmp_path)
        assert {p.question_type for p in predictions} == {"object_counting"}
        assert {p.num_frames for p in predictions} == {16}
        assert all(p.seen_s == pytest.approx(1.75 + 2.0) for p in predictions)

    def test_a_budget_reaches_the_model(self, vsi: Path, tmp_path: Path):
        model = ToyModel()
        settings = ControlSettings(anchor_budget_bytes=2)
        replies = run(vsi, tmp_path, model, control="bounded_anchors", control_settings=settings)
        assert {scene: replies[scene] for scene in COUNTS} == {"a": "1", "b": "1", "c": "2"}
        assert model.opened[0].changes() == {"anchors": "bounded", "anchor_budget_bytes": 2}

    def test_what_a_model_lacks_is_refused(self, vsi: Path, tmp_path: Path):
        with pytest.raises(ConfigError, match="no chunks"):
            run(vsi, tmp_path, control="memory_reset")
        with pytest.raises(ConfigError, match="no control 'magic'"):
            run(vsi, tmp_path / "other", control="magic")

    def test_a_donor_must_be_another_clip(self, vsi: Path, tmp_path: Path):
        benchmark = load_benchmark("vsi-bench", vsi, only={"scene": "a"})
        settings = RunSettings(sampling=SETTINGS.sampling, control="other_clip")
        with pytest.raises(DataError, match="at least two clips"):
            run_benchmark(ToyModel(), benchmark, tmp_path, settings)

    def test_every_clip_has_another_as_donor(self, vsi: Path):
        jobs = plan(load_benchmark("vsi-bench", vsi).items)
        assert [job.donor.key for job in jobs] == [jobs[i].clip.key for i in (1, 2, 0)]


def test_authors_profile_stamps_24_frames_a_second(vsi: Path, tmp_path: Path):
    model = ToyModel()
    run(vsi, tmp_path, model, profile="authors")
    predictions = read_folder(tmp_path)
    assert predictions[0].seen_s == pytest.approx(7 / 24)
    assert predictions[0].prompt.startswith("These are frames of a video.\n")
    assert predictions[0].prompt.endswith("produce the final total.")
    assert model.opened[0].system_prompt == "You are a helpful assistant."
    header = describe_run(model, load_benchmark("vsi-bench", vsi), RunSettings(profile="authors"))
    assert header["frame_times"] == "fake_24fps"


@pytest.mark.skipif(not SHARED.exists(), reason="the real material is not here")
def test_mindcube_images_end_to_end(tmp_path: Path):
    model = ToyModel()
    benchmark = load_benchmark("mindcube", SHARED / "mindcube_sample")
    settings = RunSettings(sampling=FrameSampling(doubled=True, height=48, width=64))
    predictions = run_benchmark(model, benchmark, tmp_path, settings)
    assert predictions is not None and len(predictions) == 12
    for prediction, item in zip(predictions, benchmark.items, strict=True):
        assert prediction.num_frames == 2 * len(item.clip.paths)
        assert prediction.seen_s == 2 * len(item.clip.paths) - 1
        assert prediction.prompt.startswith("[Task]\n")
        assert prediction.score().parsed in set("ABCD")
    assert len(model.opened) == len({item.clip.key for item in benchmark.items})
