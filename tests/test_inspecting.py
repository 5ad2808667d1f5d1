"""Inspection: parameters and bytes as they are, without loading weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spatial_ttt import inspecting
from spatial_ttt.errors import CheckpointError, ConfigError
from spatial_ttt.inspecting import inspect_model
from spatial_ttt.model.budget import state_budget
from spatial_ttt.testing.small import small_model
from tests.scenery import write_checkpoint


def test_a_folder(tmp_path):
    folder = write_checkpoint(tmp_path / "mine", norm_placement="pre")
    (folder / "model.safetensors").unlink()  # not needed
    report = inspect_model(folder, None)
    model = small_model()
    assert report.parameters["all"] == sum(p.numel() for p in model.parameters())
    assert report.parameters["embeddings"] == 264 * 32, "the tied head counts once"
    assert report.parameters["vision"] == sum(p.numel() for p in model.model.visual.parameters())
    assert report.size == (32, 48)
    assert report.budgets["float32"] == state_budget(report.config, (2, 3), torch.float32)
    text = report.to_text()
    assert "mine: 3 TTT layers, 1 anchors" in text and "norm_placement       pre" in text
    record = report.to_dict()
    assert (
        record["state_bytes"]["bfloat16"]["total"]["10000"]
        > record["state_bytes"]["bfloat16"]["fixed"]
    )


def test_the_paper_model():
    report = inspect_model(Path("spatial_ttt_2b"), None)
    assert report.size == (352, 480)
    assert report.parameters["ttt branch"] == pytest.approx(70.6e6, rel=0.002)
    assert report.budgets["bfloat16"].anchor_bytes_per_token == 28_672


def test_the_shipped_model_or_the_small_preset(tmp_path, monkeypatch):
    monkeypatch.setattr(inspecting, "SHIPPED", tmp_path)
    assert inspect_model(None, None).name == "tiny"
    monkeypatch.setattr(inspecting, "SHIPPED", write_checkpoint(tmp_path / "shipped"))
    assert inspect_model(None, None).name == "shipped"


def test_mistakes(tmp_path):
    with pytest.raises(ConfigError, match="do not divide into tokens of 32x32 pixels"):
        inspect_model(Path("tiny"), (100, 128))
    with pytest.raises(CheckpointError, match="No such file"):
        inspect_model(tmp_path, None)
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl"}')
    with pytest.raises(ConfigError, match="wanted spatial_ttt"):
        inspect_model(tmp_path, None)
