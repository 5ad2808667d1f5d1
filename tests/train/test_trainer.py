"""Whole runs: exact resume, any number of processes, answers learned by heart, signals, bad samples."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from spatial_ttt.errors import ConfigError, DataError, SpatialTTTError
from spatial_ttt.loading import open_model
from spatial_ttt.session import StreamingSession
from spatial_ttt.train.annealing import ttt_layers
from spatial_ttt.train.distributed import processes
from spatial_ttt.train.logs import read_metrics
from spatial_ttt.train.settings import to_plain
from spatial_ttt.train.starting import start_model
from spatial_ttt.train.trainer import Trainer, train
from spatial_ttt.video import open_source
from tests.train import toy

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.write_data(tmp_path_factory.mktemp("toy"))


def losses(folder: Path) -> list[float]:
    return [record["loss"] for record in read_metrics(folder / "metrics.jsonl") if "loss" in record]


def launch(recipe, stage: int, processes: int, *options: str) -> subprocess.Popen[str]:
    """A real run by the command line, under torchrun where there are several processes."""
    path = Path(recipe.out)
    path.mkdir(parents=True, exist_ok=True)
    file = path.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(to_plain(recipe) | {"stages": {stage: {}}}))
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    command = [*start, "spatial_ttt", "train", "--stage", str(stage), "--config", str(file)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *options], cwd=REPOSITORY, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(run: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = run.communicate(timeout=120)
    return run.returncode, out + err


def test_a_resumed_run_equals_an_uninterrupted_one(data, tmp_path):
    whole = toy.recipe(data, tmp_path / "whole", save_every=2, keep=9, optim={"ema_decay": 0.5})
    outcome = train(whole, 1)
    assert (outcome.step, outcome.was_stopped) == (4, False)
    expected = losses(outcome.folder)
    assert len(expected) == 4 and len(set(expected)) == 4
    # As if it had been killed after step 3: the newest checkpoint is that of step 2.
    other = toy.recipe(data, tmp_path / "other", save_every=2, keep=9, optim={"ema_decay": 0.5})
    train(other, 1)
    folder = tmp_path / "other" / "stage1"
    for name in ("checkpoints/step-00000004", "model"):
        (folder / name).rename(tmp_path / name.split("/")[-1])
    assert train(other, 1, resume=True).step == 4
    assert losses(folder) == expected
    again = {p.name: p.read_bytes() for p in (folder / "model").glob("*.safetensors")}
    once = {p.name: p.read_bytes() for p in (outcome.folder / "model").glob("*.safetensors")}
    assert again == once and once


def test_any_number_of_processes_takes_the_same_steps(data, tmp_path):
    alone = toy.recipe(data, tmp_path / "alone", save_every=2, keep=9, data={"packs_per_step": 4})
    folder = train(alone, 1).folder
    expected = losses(folder)
    several = toy.recipe(data, tmp_path / "two", save_every=2, keep=9, data={"packs_per_step": 4})
    code, output = finish(launch(several, 1, 2))
    assert code == 0, output
    found = losses(tmp_path / "two" / "stage1")
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    assert found == pytest.approx(expected, rel=2e-4)
    # What two processes saved after step 2, one goes on with.
    two = tmp_path / "two" / "stage1"
    (two / "checkpoints/step-00000004").rename(tmp_path / "late")
    assert train(several, 1, resume=True).step == 4
    assert losses(two)[:2] == found[:2]
    assert losses(two)[2:] == pytest.approx(found[2:], rel=2e-5)
    # And what one saved after step 2, two go on with, gathering layer by layer this time.
    (folder / "checkpoints/step-00000004").rename(tmp_path / "later")
    code, output = finish(launch(alone, 1, 2, "--resume", "--set", "gathered=layer"))
    assert code == 0, output
    assert losses(folder)[:2] == expected[:2]
    assert losses(folder)[2:] == pytest.approx(expected[2:], rel=2e-5)


def test_eight_samples_are_learned_by_heart(data, tmp_path):
    recipe = toy.recipe(
        data,
        tmp_path / "heart",
        max_steps=45,
        data={"max_samples": 8, "max_tokens": 2000, "packs_per_step": 1},
        optim={"learning_rate": {"base": 6e-3, "ttt": 6e-3}, "warmup_steps": 5},
        log_every=10,
    )
    began = time.monotonic()
    outcome = train(recipe, 2)
    assert outcome.last["exact_answers"] == 1.0, outcome.last
    assert time.monotonic() - began < 40
    loaded = open_model(outcome.folder / "model", device="cpu", dtype="float32")
    for number, answer in enumerate(toy.ANSWERS):
        session = StreamingSession(loaded.model, loaded.processor)
        session.observe(open_source(data / f"clip-{number}.mp4"))
        assert "".join(session.ask(toy.QUESTION)) == answer


def test_sigterm_saves_and_the_run_goes_on(data, tmp_path):
    recipe = toy.recipe(data, tmp_path / "stopped", max_steps=100_000, save_every=100_000)
    run = launch(recipe, 1, 1)
    metrics = tmp_path / "stopped" / "stage1" / "metrics.jsonl"
    deadline = time.monotonic() + 90
    while len(read_metrics(metrics)) < 3 and time.monotonic() < deadline and run.poll() is None:
        time.sleep(0.1)
    run.send_signal(signal.SIGTERM)
    code, output = finish(run)
    assert code == 143, output
    assert "stopped after step" in output and "--resume" in output
    before = losses(metrics.parent)
    saved = sorted((metrics.parent / "checkpoints").iterdir())
    assert [path.name for path in saved] == [f"step-{len(before):08d}"]
    # Another end only for the test: max_steps decides the schedules, so the state is asked instead.
    state = json.loads((saved[0] / "state.json").read_text())
    assert state["progress"]["step"] == len(before) and not (metrics.parent / "model").exists()
    with pytest.raises(ConfigError, match="max_steps: 100000 there, 5 now"):
        train(
            toy.recipe(data, tmp_path / "stopped", max_steps=5, save_every=100_000), 1, resume=True
        )
    with pytest.raises(ConfigError, match="go on with --resume"):
        train(recipe, 1)


def broken_data(folder: Path) -> Path:
    toy.write_data(folder, count=4)
    whole = (folder / "clip-2.mp4").read_bytes()
    (folder / "clip-2.mp4").write_bytes(whole[: len(whole) // 3])
    return folder


def test_a_bad_sample_ends_the_run_by_name(tmp_path):
    data = broken_data(tmp_path / "data")
    with pytest.raises(DataError, match=r"sample 'toy-2' cannot be trained on: .*clip-2\.mp4"):
        train(toy.recipe(data, tmp_path / "out"), 1)


def test_bad_samples_are_left_out_and_counted_if_asked_for(tmp_path):
    data = broken_data(tmp_path / "data")
    changes = {"on_bad_sample": "skip", "packs_per_step": 4, "max_samples": 1}
    outcome = train(toy.recipe(data, tmp_path / "out", max_steps=2, data=changes), 1)
    records = [r for r in read_metrics(outcome.folder / "metrics.jsonl") if "loss" in r]
    assert [r["samples"] for r in records] == [3, 3]
    assert [r["bad_samples"] for r in records] == [1, 2]
    limit = changes | {"max_bad_samples": 1}
    with pytest.raises(DataError, match="max_bad_samples"):
        train(toy.recipe(data, tmp_path / "other", data=limit), 1)


def test_a_loss_that_is_no_number_is_never_applied(data, tmp_path):
    rates = {"learning_rate": {"base": 1e30, "ttt": 1e30}, "warmup_steps": 0, "max_grad_norm": 1e30}
    with pytest.raises(SpatialTTTError, match=r"step \d has loss .*nothing of\s+it was applied"):
        train(toy.recipe(data, tmp_path / "out", optim=rates), 1)


def test_the_window_shrinks_to_the_models_own(data, tmp_path):
    changes = {"window": {"first": 64, "epochs": 2}, "data": {"packs_per_step": 2}, "max_steps": 7}
    outcome = train(toy.recipe(data, tmp_path / "out", **changes), 1)
    windows = [r["window"] for r in read_metrics(outcome.folder / "metrics.jsonl")]
    assert windows[0] == 64 and windows[-1] == 24  # the model's own
    assert all(a >= b for a, b in itertools.pairwise(windows))
    exported = open_model(outcome.folder / "model", device="cpu").model
    assert exported.config.ttt_config.window_size == 24


def test_the_average_is_what_is_exported(data, tmp_path):
    def exported(name, **changes):
        outcome = train(toy.recipe(data, tmp_path / name, **changes), 1)
        return dict(open_model(outcome.folder / "model", device="cpu").model.named_parameters())

    start, _ = start_model(toy.recipe(data, tmp_path))
    moved = exported("plain", max_steps=1)
    averaged = exported("average", max_steps=1, optim={"ema_decay": 0.75})
    for name, before in start.named_parameters():
        expected = 0.75 * before + 0.25 * moved[name]
        torch.testing.assert_close(averaged[name], expected, rtol=1e-5, atol=1e-6)
    assert any(not torch.equal(moved[n], averaged[n]) for n in moved)


def test_bfloat16_keeps_float32_masters(data, tmp_path):
    changes = {"precision": "bfloat16", "checkpointed_layers": "all", "max_steps": 2}
    outcome = train(toy.recipe(data, tmp_path / "out", **changes), 1)
    exported = open_model(outcome.folder / "model", device="cpu", dtype="bfloat16").model
    assert exported.dtype == torch.bfloat16
    assert (outcome.folder / "curves.png").stat().st_size > 5000
    assert list((outcome.folder / "tensorboard").iterdir())


@pytest.mark.parametrize("keeps", [False, True])
def test_layers_keep_newton_schulz_where_a_recipe_says_so(data, tmp_path, keeps):
    with processes("cpu") as group:
        trainer = Trainer(toy.recipe(data, tmp_path, keep_newton_schulz=keeps), 1, group)
    layers = ttt_layers(trainer.packed.model)
    assert layers and all(layer.keeps_newton_schulz is keeps for layer in layers)
