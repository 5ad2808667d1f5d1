"""`spatial-ttt train`: what it prints, where, and how it refuses. Runs themselves: tests/train."""

from __future__ import annotations

import json

import pytest
import yaml

from spatial_ttt.cli import main
from spatial_ttt.train.settings import to_plain
from tests.train import toy


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    config = toy.recipe(toy.write_data(folder / "data", count=2), folder / "out", max_steps=1)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(to_plain(config) | {"stages": {1: {}, 2: {}}}))
    return path


def test_the_answer_on_stdout_progress_on_stderr(recipe, capsys):
    assert main(["train", "--stage", "1", "--config", str(recipe)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{recipe.parent}/out/stage1/model: 1 steps, last loss ")
    assert "steps" in captured.err
    options = ["--stage", "2", "--config", str(recipe), "--set", "epochs=2", "--json"]
    assert main(["train", *options]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["step"], record["was_stopped"]) == (1, False)
    assert record["last"]["loss"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stage", "3"], "has no stage 3"),
        (["--stage", "1", "--set", "data.filez=a"], "did you mean 'files'"),
        (
            ["--stage", "1", "--set", "out=x", "--set", "data.files=[absent.jsonl]"],
            "does not exist",
        ),
        (["--stage", "1", "--set", "device=tpu"], "auto, cpu or cuda"),
    ],
)
def test_mistakes_are_one_sentence(recipe, capsys, options, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", str(recipe), *options]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and message in captured.err and "Traceback" not in captured.err


def test_a_stage_is_needed(recipe, capsys):
    assert main(["train", "--config", str(recipe)]) == 2
    assert "--stage" in capsys.readouterr().err
