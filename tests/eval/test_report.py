"""Reports: every part there, escaped, self-contained, and the command line around them."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from spatial_ttt.cli.evaluate import register
from spatial_ttt.errors import ConfigError, DataError
from spatial_ttt.eval.benchmarks import FrameSampling, load_benchmark
from spatial_ttt.eval.controls_report import report_controls
from spatial_ttt.eval.evaluate import RunSettings, run_benchmark
from spatial_ttt.eval.figures import confusion_matrix
from spatial_ttt.eval.launch import Request, choose_sampling, parse_selection, parse_size
from spatial_ttt.eval.predictions import Prediction
from spatial_ttt.eval.report import pick_failures, report_folder, write_report
from tests.eval.clips import write_vsc, write_vsi_bench
from tests.eval.run_toy import SETTINGS
from tests.eval.test_scoring import choice, number
from tests.eval.toy import ToyModel


class Document(HTMLParser):
    """Tags, texts and addresses of a page; raises on tags closed out of turn."""

    VOID = frozenset({"meta", "img", "br", "link", "use", "path"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    benchmark = load_benchmark("vsi-bench", write_vsi_bench(folder / "data"))
    run_benchmark(ToyModel(), benchmark, folder / "out", SETTINGS)
    report_folder(folder / "out")
    return folder / "out"


def test_the_page_is_whole_and_needs_no_network(run_folder: Path):
    page = Document((run_folder / "report.html").read_text())
    text = " ".join(page.texts)
    for heading in ("Scores", "Directions", "Numbers", "Failures", "What was run"):
        assert heading in page.texts
    assert page.tags.count("svg") == 3
    assert "script" not in page.tags and "link" not in page.tags
    assert page.addresses and all(
        a.startswith(("data:image/jpeg;base64,", "#")) for a in page.addresses
    )
    assert "set of places" in text and "paper v1" in text and "sha256:" in text
    assert "A part of the benchmark only" in text


def test_report_json_holds_every_figure(run_folder: Path):
    report = json.loads((run_folder / "report.json").read_text())
    assert report["scores"]["overall"]["n"] == 30
    assert report["scores"]["types"]["object_counting"]["score"] == 100.0
    low, high = report["scores"]["overall"]["interval95"]
    assert low <= report["scores"]["overall"]["score"] <= high
    assert report["run"]["frame_times"] == "true"
    assert set(report["confusions"]) == {
        f"object_rel_direction_{level}" for level in ("easy", "medium", "hard")
    }


def test_the_same_replies_give_the_same_page(run_folder: Path):
    before = (run_folder / "report.html").read_bytes()
    report_folder(run_folder)
    assert (run_folder / "report.html").read_bytes() == before


def test_texts_are_escaped(tmp_path: Path):
    evil = "<script>alert(1)</script>"
    replies = [number("0", "object_counting", evil), choice(evil, "route_planning", "B")]
    write_report(tmp_path, replies, {"benchmark": "x<b>", "model": {"name": evil}})
    text = (tmp_path / "report.html").read_text()
    assert evil not in text and "&lt;script&gt;" in text
    Document(text)


def test_stream_length_has_a_curve(tmp_path: Path):
    replies = [
        Prediction(item_id=f"{minutes}-{i}", question_type="vsc", kind="number", answer="4",
                   reply="4" if minutes < 60 else "9", stream_minutes=minutes)
        for minutes in (10.0, 30.0, 60.0)
        for i in range(5)
    ]  # fmt: skip
    write_report(tmp_path, replies, {"benchmark": "vsc"})
    assert "Stream length" in (tmp_path / "report.html").read_text()
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["score_by_minutes"] == {
        "10": {"score": 100.0, "n": 5},
        "30": {"score": 100.0, "n": 5},
        "60": {"score": 0.0, "n": 5},
    }


def test_confusions_count_by_text_and_keep_the_unreadable():
    group = [choice(str(i), "object_rel_direction_easy", reply) for i, reply in enumerate("AABx")]
    texts, counts = confusion_matrix(group)
    assert texts == ["left", "right"]
    assert counts.tolist() == [[2, 1, 1], [0, 0, 0]]


def test_failures_take_the_types_in_turn():
    replies = [number(f"n{i}", "object_counting", "x") for i in range(9)]
    replies += [choice("c", "route_planning", "B"), choice("ok", "route_planning", "A")]
    assert [one.item_id for one in pick_failures(replies, 3)] == ["n0", "c", "n1"]


def test_a_folder_without_a_run_is_refused(tmp_path: Path):
    (tmp_path / "predictions.jsonl").write_text("")
    with pytest.raises(DataError, match=r"has no run\.json"):
        report_folder(tmp_path)


def test_controls_side_by_side(tmp_path: Path):
    benchmark = load_benchmark("vsc-streaming", write_vsc(tmp_path / "vsc"))
    sampling = FrameSampling(fps=1.0, height=48, width=64)
    for name in ("none", "blind", "played_twice", "segment_and_sum"):
        settings = RunSettings(control=name, sampling=sampling)
        settings = RunSettings(
            control=name,
            sampling=sampling,
            control_settings=type(settings.control_settings)(segment_frames=1),
        )
        run_benchmark(ToyModel(), benchmark, tmp_path / "out" / name, settings)
    results = report_controls(tmp_path / "out", {"memory_reset": "the toy has no chunks"})
    assert results["blind"].lines["micro"].paired.difference == -100.0
    assert results["played_twice"].lines["micro"].paired.difference < 0
    report = json.loads((tmp_path / "out" / "controls.json").read_text())
    assert report["count_ratios"]["none"]["median"] == 1.0
    assert report["count_ratios"]["segment_and_sum"]["median"] > 1.0
    page = Document((tmp_path / "out" / "controls.html").read_text())
    assert page.tags.count("svg") == 1
    assert any("memory_reset was not run" in text for text in page.texts)
    with pytest.raises(DataError, match="needs the runs none/"):
        report_controls(tmp_path / "vsc", {})


class TestCommandLine:
    def invoke(self, *arguments: str) -> tuple[int, str]:
        app = typer.Typer(pretty_exceptions_enable=False)
        app.callback()(lambda: None)
        register(app)
        result = CliRunner().invoke(app, ["eval", *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    def test_run_score_and_compare(self, tmp_path: Path):
        vsi = str(write_vsi_bench(tmp_path / "vsi"))
        out = tmp_path / "out"
        code, text = self.invoke(
            "--benchmark", "vsi-bench", "--data", vsi, "--model", "prior", "--out", str(out)
        )
        assert code == 0 and "overall (mean of the eight)" in text
        assert (out / "report.html").is_file()
        code, text = self.invoke("score", str(out), "--json")
        assert code == 0 and json.loads(text)["micro"]["n"] == 30
        code, text = self.invoke(
            "score",
            str(out),
            "--benchmark",
            "vsi-bench",
            "--data",
            vsi,
            "--out",
            str(tmp_path / "s"),
        )
        assert code == 0 and (tmp_path / "s" / "report.html").is_file()
        code, text = self.invoke("compare", str(out), str(out))
        assert code == 0 and "30 of 30 replies are equal" in text
        code, text = self.invoke("compare", str(out), str(out), "--json")
        assert json.loads(text)["num_equal_replies"] == 30

    def test_controls(self, tmp_path: Path):
        vsi = str(write_vsi_bench(tmp_path / "vsi"))
        code, text = self.invoke(
            "controls", "--benchmark", "vsi-bench", "--data", vsi, "--model", "prior",
            "--out", str(tmp_path / "out"), "--controls", "blind,played_twice",
        )  # fmt: skip
        assert code == 0 and "A: as it is; B: blind" in text
        assert (tmp_path / "out" / "controls.html").is_file()

    def test_usage_errors(self):
        assert self.invoke("--benchmark", "vsi-bench")[0] == 2
        assert self.invoke("--help")[0] == 0

    def test_options_are_checked(self):
        with pytest.raises(ConfigError, match="KEY=VALUE"):
            parse_selection(["scene"])
        with pytest.raises(ConfigError, match="no size"):
            parse_size("352")
        assert parse_size("352x480") == (352, 480)
        request = Request(benchmark="x", data=Path(), out=Path(), num_frames=3, size=(32, 48))
        chosen = choose_sampling(FrameSampling(fps=1.0), request)
        assert (chosen.num_frames, chosen.fps, chosen.size) == (3, None, (32, 48))
        with pytest.raises(ConfigError, match="shown twice"):
            choose_sampling(FrameSampling(doubled=True), request)


def test_no_report_names_a_machine(run_folder: Path):
    """A report may be passed on: the only paths in it are those the run was given."""
    text = (run_folder / "report.html").read_text()
    assert not re.search(r"file://|hostname|/home/", text)
