"""Ablations: every variant is a run that can begin, and a result says what was done."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from spatial_ttt.errors import ConfigError
from spatial_ttt.train.tiny import parse
from spatial_ttt.train.tiny_setup import make_model
from spatial_ttt.train.variants import DEFAULT, VARIANTS, command, main, read, result
from tests.train import clips


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_makes_another_model_or_run(name: str) -> None:
    words = command(name, 3, Path("here"), ["--minutes", "2"])
    assert words[:3] == [sys.executable, "-m", "spatial_ttt.train.tiny"]
    chosen, whole = (
        parse(words[3:]),
        parse(command("whole", 3, Path("here"), ["--minutes", "2"])[3:]),
    )
    assert (chosen.seed, chosen.minutes, chosen.work) == (3, 2.0, Path("here"))
    chosen.preset = whole.preset = "test"
    model, plain = (make_model(one, clips.tokenizer(), None) for one in (chosen, whole))
    is_other = vars(chosen) != vars(whole) | {"ttt": chosen.ttt}
    assert is_other or (model.config.ttt != plain.config.ttt) == (name != "whole")


def test_an_unknown_variant_and_a_bad_seed_are_refused() -> None:
    with pytest.raises(ConfigError, match="no variant 'half'; known: whole"):
        command("half", 0, Path("here"), [])
    with pytest.raises(ConfigError, match="a seed must be within"):
        command("whole", -1, Path("here"), [])


def test_a_result_holds_the_last_scores_with_and_without_video(tmp_path: Path) -> None:
    scores = {"full": {"a": [0.5, 0.2, 9], "b": [1.0, 0.3, 9]}, "blind": {"a": [0.25, 0.2, 9]}}
    records = [
        {"step": 10, "loss": 1.0, "clips_made": 70, "seconds": 5.0},
        {"step": 10, "probe": "look", "scores": {"full": scores["full"]}, "seconds": 6.0},
        {"step": 12, "probe": "look", "scores": scores, "seconds": 8.0},
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records[:2]))
    with pytest.raises(ConfigError, match="holds no whole run"):
        result(path, "whole", 1)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    found = result(path, "whole", 1)
    assert found["means"] == {"look": {"full": 0.75, "blind": 0.25}}
    assert (found["variant"], found["seed"], found["steps"], found["clips"]) == ("whole", 1, 12, 70)
    assert found["scores"] == {"look": scores} and found["seconds"] == 8.0


BUDGET = {"max-steps": 2, "minutes": 1.5, "workers": 1, "clips": 2, "branches": 4, "capacity": 12}
MODEL = {"preset": "test", "plan": "smoke", "device": "cpu", "dtype": "float32", "warmup": 2}
OTHERS = {"eval-clips": 2, "fresh": 1}
TOY = [f"--{name}={value}" for name, value in (BUDGET | MODEL | OTHERS).items()]


def test_runs_at_once_have_equal_steps_and_a_dead_one_does_not_end_the_others(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.jsonl"
    words = [
        "--variants",
        "whole",
        "no_muon",
        "chunk_256",
        "--at-once",
        "3",
        "--no-gpu",
        "--commit",
        "abc",
    ]
    words += ["--work", str(tmp_path / "work"), "--results", str(results), "--limit", "120"]
    # Chunks of 64 tokens have no room for a question: that run ends with an error.
    broken = ["--ttt", "chunk_size=64"]
    assert main([*words, "--", *TOY, *broken]) == 1
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line["variant"] for line in lines] == ["chunk_256"]  # which sets its own chunk
    assert lines[0]["steps"] == 2 and lines[0]["commit"] == "abc"
    assert {"full", "blind"} <= set(lines[0]["means"]["look"])
    told = capfd.readouterr().out
    assert "whole-0 ended with 1" in told and "no_muon-0 ended with 1" in told
    assert "ConfigError" in told and "1 of 3 runs have results" in told
    assert main(["--table", "--results", str(results)]) == 0
    assert "| chunk_256 | 1 | 2 |" in capfd.readouterr().out


def test_two_seeds_of_the_issue_s_table_fit_twenty_processes() -> None:
    assert len(DEFAULT) == 10
    wanted = {
        "whole",
        "no_convolution",
        "no_dense",
        "no_anchors",
        "window",
        "full",
        "no_muon",
        "pre_norm",
    }
    assert wanted < set(DEFAULT) <= set(VARIANTS)


def test_metrics_are_read_while_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read(path) == []
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    assert read(path) == [{"step": 1}]
