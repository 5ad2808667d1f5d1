"""Save a run where it is collected: weights in small shards, everything else in one archive."""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import torch

from spatial_ttt.errors import CheckpointError
from spatial_ttt.loading import small_model_frames
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.processor import Processor
from spatial_ttt.train.annealing import window_of

SHARD_SIZE = "14MB"
ARCHIVE = "files.tar"
_SHARD = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")


def save_model(
    model: SpatialTTTForConditionalGeneration, tokenizer: Any, folder: Path, size: tuple[int, int]
) -> None:
    """Weights in bfloat16, configuration, tokenizer and frame size; replaces the folder at once.

    `size` is the (height, width) in pixels of the frames the model was trained on.
    """
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    state = {
        k: v.detach().to(torch.bfloat16)
        for k, v in model.state_dict().items()
        if not (k == "lm_head.weight" and model.config.tie_word_embeddings)
    }
    model.save_pretrained(fresh, state_dict=state, max_shard_size=SHARD_SIZE)
    config = json.loads((fresh / "config.json").read_text())
    config["dtype"] = "bfloat16"
    config["ttt"]["window_size"] = window_of(model)  # what the weights were trained with last
    (fresh / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    Processor(tokenizer, small_model_frames(size)).save_pretrained(fresh)
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def publish(model_folder: Path, others: list[Path], target: Path) -> None:
    """Copy shards as they are and everything else into one archive, each file replaced at once.

    Shards of an earlier model with another number of them are taken away.
    """
    target.mkdir(parents=True, exist_ok=True)
    shards = sorted(model_folder.glob("*.safetensors"))
    for path in shards:
        _replace(target / path.name, path)
    archive = target / f".{ARCHIVE}.new"
    with tarfile.open(archive, "w") as tar:
        for path in sorted(p for p in model_folder.iterdir() if p.suffix != ".safetensors"):
            tar.add(path, arcname=path.name)
        for path in others:
            if path.exists():
                tar.add(path, arcname=path.name)
    os.replace(archive, target / ARCHIVE)
    names = {path.name for path in shards}
    for path in target.glob("*.safetensors"):
        if _SHARD.fullmatch(path.name) and path.name not in names:
            path.unlink()


def _replace(target: Path, source: Path) -> None:
    fresh = target.with_name(f".{target.name}.new")
    shutil.copyfile(source, fresh)
    os.replace(fresh, target)


def unpack(folder: Path, target: Path) -> Path:
    """A folder `load_model` takes, from what `publish` wrote (or the folder itself, if it is one)."""
    if (folder / "config.json").is_file():
        return folder
    if not (folder / ARCHIVE).is_file():
        raise CheckpointError(
            f"{folder} holds neither config.json nor {ARCHIVE}; give a run's output folder"
        )
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    with tarfile.open(folder / ARCHIVE) as tar:
        tar.extractall(target, filter="data")
    for path in folder.glob("*.safetensors"):
        shutil.copyfile(path, target / path.name)
    return target
