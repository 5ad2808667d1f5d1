"""Checkpoints appear whole or not at all, say what they are, and refuse another run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from spatial_ttt.errors import CheckpointError, ConfigError
from spatial_ttt.processor import Processor
from spatial_ttt.train.checkpointing import Checkpoints, check_same_run, read_state
from spatial_ttt.train.distributed import processes, whole
from spatial_ttt.train.settings import to_plain
from spatial_ttt.train.starting import resumed_model
from spatial_ttt.train.trainer import Trainer, train
from tests.train import toy


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.write_data(tmp_path_factory.mktemp("toy"), count=4)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A finished run of four steps with a checkpoint at each."""
    recipe = toy.recipe(data, tmp_path_factory.mktemp("run"), save_every=1, keep=3)
    return recipe, train(recipe, 1).folder


def test_a_checkpoint_says_what_it_is(run):
    recipe, folder = run
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == [f"step-{n:08d}" for n in (2, 3, 4)], "the newest three are kept"
    newest = folder / "checkpoints" / names[-1]
    progress, record = read_state(newest)
    assert (progress.step, record["processes"], record["stage"], record["num_steps"]) == (
        4,
        1,
        1,
        4,
    )
    assert record["config"] == json.loads(json.dumps(to_plain(recipe)))
    assert record["rule"]["use_muon"] is True and record["rule"]["chunk_size"] == 24
    assert record["random_numbers"] == {"seed": 42, "step": 4}
    assert progress.samples > 0 and progress.tokens > progress.samples
    model, processor = resumed_model(newest, recipe)
    assert model.config.ttt_config.chunk_size == 24 and isinstance(processor, Processor)


def test_everything_comes_back(run, data):
    recipe, folder = run
    with processes("cpu") as group:
        resumed = Trainer(recipe, 1, group, resume=True)
        saved = {name: whole(v).clone() for name, v in resumed.state.tensors().items()}
        assert int(resumed.optimizer.updates) == 4
        for value in resumed.state.tensors().values():
            value.zero_()
        resumed.state.load(folder / "checkpoints/step-00000004")
        for name, value in resumed.state.tensors().items():
            assert torch.equal(whole(value), saved[name]), name


def test_an_unfinished_folder_is_no_checkpoint(tmp_path):
    (tmp_path / "step-00000009.partial").mkdir()
    (tmp_path / "step-00000008").mkdir()  # no state.json
    assert Checkpoints(tmp_path, None, 1).newest() is None  # type: ignore[arg-type]
    (tmp_path / "step-00000007").mkdir()
    (tmp_path / "step-00000007" / "state.json").write_text("{}")
    newest = Checkpoints(tmp_path, None, 1).newest()  # type: ignore[arg-type]
    assert newest is not None and newest.name == "step-00000007"
    with pytest.raises(CheckpointError, match="has format None"):
        read_state(newest)


def test_damage_is_one_sentence(run, tmp_path):
    recipe, folder = run
    newest = folder / "checkpoints/step-00000003"
    shard = next(newest.glob("*.distcp"))
    whole = shard.read_bytes()
    with processes("cpu") as group:
        trainer = Trainer(recipe, 1, group, resume=True)
        shard.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(CheckpointError, match="cannot be read back"):
            trainer.state.load(newest)
    shard.write_bytes(whole)


def test_settings_that_change_what_is_learned_are_refused():
    then = to_plain(toy.recipe(Path("d"), Path("o")))
    free = to_plain(
        toy.recipe(
            Path("elsewhere"),
            Path("p"),
            save_every=7,
            checkpointed_layers="all",
            keep_newton_schulz=True,
            data={"workers": 9, "root": "r"},
            validation={"files": ["v"], "every": 5},
        )
    )
    check_same_run(then, free, Path("folder"))
    for changes, named in (
        ({"seed": 1}, "seed: 42 there, 1 now"),
        (
            {"optim": {"learning_rate": {"ttt": 0.5}}},
            "optim.learning_rate.ttt: 0.001 there, 0.5 now",
        ),
        ({"data": {"packs_per_step": 4}}, "data.packs_per_step: 2 there, 4 now"),
        ({"window": {"first": 30, "epochs": 1}}, "window"),
    ):
        with pytest.raises(ConfigError, match=named):
            check_same_run(
                then, to_plain(toy.recipe(Path("d"), Path("o"), **changes)), Path("folder")
            )


def test_other_data_are_refused(run, tmp_path):
    recipe, _ = run
    file = Path(recipe.data.files[0]) / "examples.jsonl"
    text = file.read_text()
    file.write_text(text.replace('"3"', '"33"'))
    try:
        with pytest.raises(ConfigError, match="was trained on other data"):
            train(recipe, 1, resume=True)
    finally:
        file.write_text(text)
