"""What a run leaves behind can be opened, resumed from, and replaced."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
import torch

from spatial_ttt.errors import CheckpointError
from spatial_ttt.loading import open_model
from spatial_ttt.processor import PROCESSOR_FILE
from spatial_ttt.tokenizer import load_tokenizer
from spatial_ttt.train import publish as module
from spatial_ttt.train.publish import ARCHIVE, publish, save_model, unpack
from tests.train import clips

SIZE = (32, 64)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(clips.model(), clips.tokenizer(), folder, SIZE)
    return folder


def test_a_published_folder_opens_with_its_weights_and_frame_size(
    saved: Path, tmp_path: Path
) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("{}\n")
    publish(saved, [metrics, tmp_path / "absent.png"], tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"model.safetensors", ARCHIVE}
    folder = unpack(tmp_path / "out", tmp_path / "unpacked")
    assert (folder / PROCESSOR_FILE).is_file() and (folder / "metrics.jsonl").is_file()
    opened = open_model(folder, device="cpu")
    assert opened.is_trained and opened.processor.frames.size == SIZE
    assert opened.processor.encode("chair") == clips.tokenizer().encode("chair")
    model = clips.model()
    for name, value in opened.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name].bfloat16().float()), name
    assert load_tokenizer(folder).get_vocab() == clips.tokenizer().get_vocab()


def test_saving_replaces_the_folder_whole(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old.txt").write_text("old")
    save_model(clips.model(seed=2), clips.tokenizer(), folder, SIZE)
    assert {p.name for p in folder.iterdir()} == {p.name for p in saved.iterdir()}
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"


def test_shards_of_an_earlier_model_go(saved: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "SHARD_SIZE", "60KB")
    save_model(clips.model(seed=3), clips.tokenizer(), tmp_path / "many", SIZE)
    out = tmp_path / "out"
    publish(saved, [], out)
    (out / "mine.safetensors").write_bytes(b"of somebody else")
    publish(tmp_path / "many", [], out)
    shards = {p.name for p in (tmp_path / "many").glob("*.safetensors")}
    assert len(shards) > 2
    assert {p.name for p in out.iterdir()} == shards | {ARCHIVE, "mine.safetensors"}
    (out / "mine.safetensors").unlink()
    opened = open_model(unpack(out, tmp_path / "unpacked"), device="cpu")
    expected = clips.model(seed=3).state_dict()["lm_head.weight"].bfloat16().float()
    assert torch.equal(opened.model.state_dict()["lm_head.weight"], expected)


def test_a_plain_folder_is_taken_as_it_is_and_an_empty_one_refused(
    saved: Path, tmp_path: Path
) -> None:
    assert unpack(saved, tmp_path / "unused") == saved
    assert not (tmp_path / "unused").exists()
    with pytest.raises(CheckpointError, match=r"holds neither config\.json nor files\.tar"):
        unpack(tmp_path, tmp_path / "unused")


def test_an_archive_cannot_write_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    with tarfile.open(tmp_path / ARCHIVE, "w") as tar:
        tar.add(tmp_path / "secret", arcname="../escaped")
    with pytest.raises(tarfile.OutsideDestinationError):
        unpack(tmp_path, tmp_path / "in" / "unpacked")
    assert not (tmp_path / "in" / "escaped").exists()
