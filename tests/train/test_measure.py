"""A model is measured on homes made on the spot, in every way of asking."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spatial_ttt.eval.predictions import PREDICTIONS, read_log
from spatial_ttt.eval.report import report_folder
from spatial_ttt.scenes.homes import home_seed
from spatial_ttt.train import measure, probe
from spatial_ttt.train.publish import save_model
from tests.train import clips

WAYS = ("none", "blind", "one_frame", "memory_off", "window_only", "full_attention")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    save_model(clips.model(), clips.tokenizer(), folder / "model", (32, 64))
    arguments = ["--model", str(folder / "model"), "--out", str(folder / "out"), "--homes", "2"]
    arguments += ["--questions", "6", "--workers", "1", "--device", "cpu", "--dtype", "float32"]
    arguments += ["--plan", "smoke", "--stage", "look", "--ways", *WAYS]
    assert measure.main(arguments) == 0
    return folder / "out"


def test_every_way_asks_the_same_questions_about_the_same_homes(measured: Path) -> None:
    asked = {}
    for way in WAYS:
        found = read_log(measured / way / PREDICTIONS)
        assert {one.clip[0] for one in found} == {f"home {home_seed('test', n)}" for n in range(2)}
        asked[way] = [(one.item_id, one.question, one.answer, one.options) for one in found]
        assert all(bool(one.options) == (one.kind == "choice") for one in found)
        assert report_folder(measured / way).micro.n == len(found)
        run = json.loads((measured / way / "run.json").read_text())
        assert run["control"] == way and run["homes"] == 2 and run["split"] == "test"
    assert all(rows == asked["none"] for rows in asked.values())


def test_replies_of_the_whole_clip_are_those_of_the_probe(measured: Path) -> None:
    arguments = measure._parser().parse_args(
        [
            "--model",
            "m",
            "--out",
            "o",
            "--homes",
            "2",
            "--workers",
            "1",
            "--plan",
            "smoke",
            "--stage",
            "look",
        ]
    )
    model = clips.model().eval()
    ring = measure.unseen_homes(arguments, measured.parent / "model" / "tokenizer.json", clips.CPU)
    prefix = clips.clip_prefix(clips.tokenizer(), ring.spec)
    expected = probe.answer_ring(model, clips.tokenizer(), ring, prefix, branches=6)
    found = read_log(measured / "none" / PREDICTIONS)
    assert [one.reply for one in found] == [one.reply for one in expected]
    rows = json.loads((measured / "constants.json").read_text())["rows"]
    assert rows["random"] and rows["frequency"]
    table = (measured / "table.md").read_text()
    assert (
        table.startswith("| type | n | none, 95 % | blind, 95 %") and "mean of the types" in table
    )
