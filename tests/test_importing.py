"""Importing a folder: what is written can be opened, and nothing is overwritten or half-written."""

from __future__ import annotations

import pytest

from spatial_ttt.errors import CheckpointError
from spatial_ttt.importing import import_folder
from spatial_ttt.loading import open_model
from spatial_ttt.testing.small import byte_tokenizer
from tests.test_checkpoint import stock_config, stock_tensors, write

RULE = {"use_muon": False, "norm_placement": "pre"}
SIZES = {"num_fast_heads": 2, "chunk_size": 30, "window_size": 60}


@pytest.fixture
def stock(tmp_path):
    folder = write(tmp_path / "stock", stock_tensors(), stock_config())
    byte_tokenizer().save_pretrained(str(folder))
    return folder


def test_the_import_can_be_opened_and_says_its_rule(stock, tmp_path):
    summary = import_folder(stock, tmp_path / "ours", **RULE, **SIZES)
    assert "3 TTT layers and 1 anchors, Muon off, pre-norm" in summary
    loaded = open_model(tmp_path / "ours", device="cpu", size=(32, 64))
    assert loaded.model.config.ttt_config.norm_placement == "pre"
    assert loaded.model.config.ttt_config.window_size == 60
    assert loaded.name == "ours" and loaded.is_trained
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ours", "stock"]


def test_nothing_is_overwritten(stock, tmp_path):
    (tmp_path / "ours").mkdir()
    with pytest.raises(CheckpointError, match="exists; name a new folder"):
        import_folder(stock, tmp_path / "ours", **RULE, **SIZES)
    assert not list((tmp_path / "ours").iterdir())


def test_a_failed_import_leaves_nothing(stock, tmp_path):
    (stock / "tokenizer.json").unlink()
    (stock / "tokenizer_config.json").unlink()
    with pytest.raises(CheckpointError, match="holds no tokenizer"):
        import_folder(stock, tmp_path / "ours", **RULE, **SIZES)
    assert not (tmp_path / "ours").exists()


def test_what_a_kill_left_is_swept_away(stock, tmp_path):
    unfinished = tmp_path / ".ours.unfinished"
    unfinished.mkdir()
    (unfinished / "model-00007-of-00009.safetensors").write_text("half")
    import_folder(stock, tmp_path / "ours", **RULE, **SIZES)
    assert not unfinished.exists()
    assert not list((tmp_path / "ours").glob("model-00007*"))
