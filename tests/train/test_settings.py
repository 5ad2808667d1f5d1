"""Recipes: every key known, every mistake named, the shipped ones whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from spatial_ttt.errors import ConfigError
from spatial_ttt.train.run_config import TrainConfig
from spatial_ttt.train.settings import build, load_recipe, overlay, parse_change, to_plain

RUNS = Path(__file__).parents[2] / "runs"
MINIMAL = {
    "out": "somewhere",
    "data": {"files": ["a.jsonl"]},
    "optim": {"learning_rate": {"base": "1e-6", "ttt": 1e-5}},
    "stages": {1: {"epochs": 3}, 2: {"start": {"folder": "{out}/stage1/model"}}},
}


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    return path


def test_stages_and_changes_lie_over_the_common_part(recipe):
    first = load_recipe(recipe, 1)
    assert (first.epochs, first.start.folder) == (3.0, None)
    second = load_recipe(recipe, 2, ["out=elsewhere", "data.frames.most=64", "seed=7"])
    assert second.start.folder == "elsewhere/stage1/model"
    assert (second.data.frames.most, second.seed, second.epochs) == (64, 7, 1.0)
    assert second.optim.learning_rate == {"base": 1e-6, "ttt": 1e-5}, "YAML reads 1e-6 as a text"


def test_what_is_written_reads_back(recipe):
    config = load_recipe(
        recipe, 1, ["window={first: 5600, epochs: 2}", "data.frames.size=[352, 480]"]
    )
    assert build(TrainConfig, yaml.safe_load(yaml.safe_dump(to_plain(config))), "again") == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "data.pack_per_step=3",
            "nobody knows the key 'data.pack_per_step'; did you mean 'packs_per_step'",
        ),
        ("optm.weight_decay=0", "did you mean 'optim'"),
        ("zzz=1", "nobody knows the key 'zzz'; known: out, start"),
        ("seed=abc", "seed must be a int, got 'abc'"),
        ("epochs=false", "epochs must be a float, got False"),
        ("data.on_bad_sample=swap", "must be one of raise, skip, got 'swap'"),
        ("data.frames.size=[352]", "data.frames.size wants 2 values"),
        ("data.frames.least=300", "1 <= least <= most"),
        ("data.max_tokens=0", "data.max_tokens must be at least 1"),
        ("data=5", "data wants keys and values"),
        ("optim.learning_rate=3", "optim.learning_rate wants keys and values, got 3"),
        ("optim.learning_rate.tower=1", "may name head and vision"),
        ("optim.ema_decay=1.5", "ema_decay"),
        ("window={first: 100}", "lacks window.epochs"),
        ("max_steps=0", "max_steps must be at least 1"),
        ("lora.rank=-1", "rank >= 0"),
        ("seed", "--set takes KEY=VALUE"),
        ("seed=[", "not YAML"),
    ],
)
def test_mistakes_are_named(recipe, change, message):
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe, 1, [change])
    assert message in str(caught.value)


def test_files_that_are_no_recipe(tmp_path, recipe):
    with pytest.raises(ConfigError, match="has no stage 3; its `stages` are: 1, 2"):
        load_recipe(recipe, 3)
    with pytest.raises(ConfigError, match="cannot read"):
        load_recipe(tmp_path / "absent.yaml", 1)
    for text, message in (("- a", "holds a list"), ("a: [", "is not YAML")):
        recipe.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_recipe(recipe, 1)


def test_overlay_and_changes():
    assert parse_change("a.b=[1, x]") == {"a": {"b": [1, "x"]}}
    assert overlay({"a": {"b": 1, "c": 2}}, {"a": {"b": {"d": 3}}}) == {
        "a": {"b": {"d": 3}, "c": 2}
    }


@pytest.mark.parametrize("path", sorted(RUNS.glob("*.yaml")), ids=lambda p: p.stem)
def test_the_shipped_recipes_are_whole(path):
    stages = yaml.safe_load(path.read_text())["stages"]
    for stage in stages:
        config = load_recipe(path, stage)
        assert build(TrainConfig, to_plain(config), "again") == config


def test_the_papers_numbers():
    first, second = (load_recipe(RUNS / "spatial_ttt_2b.yaml", stage) for stage in (1, 2))
    assert (first.window.first, first.window.epochs, second.window) == (5600, 2.0, None)
    assert first.start.ttt["chunk_size"] == first.start.ttt["window_size"] == 2648
    assert first.data.frames.most == 32 and first.data.frames.fps is None
    assert (second.data.frames.least, second.data.frames.most) == (64, 128)
    for stage in (first, second):
        assert stage.optim.learning_rate == {"base": 1e-6, "ttt": 1e-5}
        assert stage.optim.warmup_steps == 1000 and stage.data.frames.size == (352, 480)
