"""Opening a model: a folder, the shipped one, or a random one that says so."""

from __future__ import annotations

import logging

import pytest
import torch

from spatial_ttt import loading
from spatial_ttt.errors import CheckpointError, ConfigError
from spatial_ttt.loading import open_model, resolve_device, resolve_dtype
from spatial_ttt.session import StreamingSession
from tests.scenery import answer, frames, write_checkpoint


def test_a_folder(tmp_path):
    loaded = open_model(write_checkpoint(tmp_path / "mine"), device="cpu")
    assert (loaded.name, loaded.is_trained, loaded.model.dtype) == ("mine", True, torch.float32)
    assert loaded.processor.frames.size == (32, 48)
    assert not loaded.model.training
    wide = open_model(tmp_path / "mine", device="cpu", dtype="float64", size=(16, 32))
    assert wide.model.dtype == torch.float64 and wide.processor.frames.size == (16, 32)


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(CheckpointError, match="give the folder of a checkpoint"):
        open_model(tmp_path / "nowhere")


def test_the_shipped_model(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "SHIPPED", write_checkpoint(tmp_path / "shipped"))
    loaded = open_model(device="cpu")
    assert loaded.name == "shipped" and loaded.is_trained


def test_without_a_shipped_model_a_random_one_answers_and_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(loading, "SHIPPED", tmp_path)
    before = torch.random.get_rng_state()
    with caplog.at_level(logging.WARNING):
        loaded = open_model(device="cpu")
    assert "random weights" in caplog.text and not loaded.is_trained
    assert torch.equal(torch.random.get_rng_state(), before)
    session = StreamingSession(loaded.model, loaded.processor)
    session.observe(frames(4, size=(96, 128)))
    assert session.stats().num_slots == 2
    assert isinstance(answer(session), str)


def test_devices_and_precisions():
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="no device 'gpu'; use auto, cpu, cuda or cuda:N"):
        resolve_device("gpu")
    if not torch.cuda.is_available():
        assert resolve_device("auto") == torch.device("cpu")
        with pytest.raises(ConfigError, match="offers no CUDA; use --device cpu"):
            resolve_device("cuda:3")
    assert resolve_dtype("auto", torch.device("cpu")) == torch.float32
    assert resolve_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert resolve_dtype("float64", torch.device("cuda")) == torch.float64
    with pytest.raises(ConfigError, match="no precision 'half'; use auto, float32"):
        resolve_dtype("half", torch.device("cpu"))
