"""The mean of two models is a model; of models that do not fit there is none, and nothing is left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from spatial_ttt.checkpoint import load_model
from spatial_ttt.errors import CheckpointError
from spatial_ttt.loading import open_model
from spatial_ttt.train import publish as publishing
from spatial_ttt.train.averaged import average
from spatial_ttt.train.publish import publish, save_model
from tests.train import clips


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model's folder in several shards, and what a run of another seed published."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "SHARD_SIZE", "60KB")
        save_model(clips.model(), clips.tokenizer(), folder / "one", (32, 64))
    save_model(clips.model(seed=2), clips.tokenizer(), folder / "model", (32, 64))
    publish(folder / "model", [], folder / "two")
    return folder / "one", folder / "two"


def test_the_mean_of_two_runs_opens_as_a_model(runs: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "mean"
    average(runs, out)
    assert {p.name for p in out.iterdir()} == {p.name for p in runs[0].iterdir()}
    mean = open_model(out, device="cpu")
    assert mean.is_trained
    found = mean.model.state_dict()
    parts = [clips.model(), clips.model(seed=2)]
    for name, value in load_model(runs[0]).state_dict().items():
        one, two = (model.state_dict()[name].bfloat16().float() for model in parts)
        assert torch.equal(found[name], ((one + two) / 2).bfloat16().float()), name
        assert value.shape == found[name].shape


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("config", "config.json: .* only runs of one model"),
        ("missing", "names of weights"),
        ("cut", "no whole safetensors file"),
        ("none", "cannot be read|holds neither"),
    ],
)
def test_models_that_do_not_fit_have_no_mean(
    runs: tuple[Path, Path],
    tmp_path: Path,
    damage: str,
    words: str,
) -> None:
    other = tmp_path / "other"
    shutil.copytree(runs[0], other)
    shard = max(other.glob("*.safetensors"))
    if damage == "config":
        config = json.loads((other / "config.json").read_text())
        config["ttt"]["window_size"] += 1
        (other / "config.json").write_text(json.dumps(config))
    elif damage == "missing":
        shard.unlink()
    elif damage == "cut":
        shard.write_bytes(shard.read_bytes()[:-1])
    else:
        shutil.rmtree(other)
    with pytest.raises(CheckpointError, match=words):
        average([runs[0], other], tmp_path / "mean")
    assert {p.name for p in tmp_path.iterdir()} <= {"other"}


def test_one_model_has_no_mean_and_nothing_is_overwritten(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="two models or more, got 1"):
        average(runs[:1], tmp_path / "mean")
    with pytest.raises(CheckpointError, match="is there already"):
        average(runs, tmp_path)
