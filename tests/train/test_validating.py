"""Held-out looks: the same at every look, and they leave training as it is."""

from __future__ import annotations

from spatial_ttt.train.logs import read_metrics
from spatial_ttt.train.trainer import train
from tests.train import toy


def test_looking_changes_no_loss(tmp_path):
    data = toy.write_data(tmp_path / "data", count=6)
    held_out = toy.write_data(tmp_path / "held_out", count=3)
    plain = train(toy.recipe(data, tmp_path / "plain", max_steps=3), 1).folder
    validation = {"files": [str(held_out)], "every": 2, "packs": 9}
    looking = train(toy.recipe(data, tmp_path / "looking", max_steps=3, validation=validation), 1)
    records = read_metrics(looking.folder / "metrics.jsonl")
    trained = [r["loss"] for r in records if "loss" in r]
    assert trained == [r["loss"] for r in read_metrics(plain / "metrics.jsonl")]
    looks = [r for r in records if "val_loss" in r]
    assert [r["step"] for r in looks] == [2, 3]  # every second step and at the end
    assert all(r["val_samples"] == 3 and r["val_loss"] > 0 for r in looks)
