"""The model a run begins with, its processor, and the folder it ends in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from spatial_ttt.checkpoint import import_checkpoint, load_model
from spatial_ttt.errors import ConfigError
from spatial_ttt.files import read_json
from spatial_ttt.loading import SMALL_SIZE, small_model_frames
from spatial_ttt.model.configuration import SpatialTTTConfig
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.presets import TINY_VOCAB_SIZE, preset
from spatial_ttt.processor import Processor
from spatial_ttt.tokenizer import default_texts, token_ids, train_tokenizer
from spatial_ttt.train.initialise import initialise
from spatial_ttt.train.run_config import TrainConfig

Started = tuple[SpatialTTTForConditionalGeneration, Processor]


def start_model(config: TrainConfig) -> Started:
    """A model in float32 on the CPU, the same on every process, and its processor."""
    if config.start.folder is None:
        return _fresh(config)
    folder = Path(config.start.folder)
    processor = Processor.from_pretrained(folder, size=config.data.frames.size)
    if read_json(folder / "config.json").get("model_type") == "spatial_ttt":
        model = load_model(folder, dtype=torch.float32)
        _refuse_other_rule(folder, model.config, config.start.ttt)
        return model, processor
    rule = dict(config.start.ttt)
    missing = [name for name in ("use_muon", "norm_placement") if name not in rule]
    if missing:
        raise ConfigError(
            f"{folder} is a stock model: name its rule, start.ttt lacks {', '.join(missing)}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # fresh TTT parameters
        return import_checkpoint(folder, dtype=torch.float32, **rule), processor


def _refuse_other_rule(folder: Path, config: SpatialTTTConfig, wanted: Mapping[str, Any]) -> None:
    has = config.ttt_config.to_dict()
    for name, value in wanted.items():
        if name not in has or has[name] != value:
            raise ConfigError(
                f"{folder} was trained with {name} = {has.get(name)!r}, start.ttt says {value!r}; "
                f"a trained model keeps its rule"
            )


def _fresh(config: TrainConfig) -> Started:
    tokenizer = train_tokenizer(default_texts(), TINY_VOCAB_SIZE)
    model_config = preset(
        config.start.preset, token_ids=token_ids(tokenizer), **dict(config.start.ttt)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = SpatialTTTForConditionalGeneration(model_config)
        initialise(model, config.seed, config.start.gate_bias)
    return model, Processor(tokenizer, small_model_frames(config.data.frames.size or SMALL_SIZE))


def resumed_model(folder: Path, config: TrainConfig) -> Started:
    """A model of a checkpoint's shape; its weights are still to be read."""
    with torch.random.fork_rng(devices=[]):
        model = SpatialTTTForConditionalGeneration(SpatialTTTConfig.from_pretrained(folder))
    return model, Processor.from_pretrained(folder, size=config.data.frames.size)


def export(
    config: SpatialTTTConfig,
    tensors: dict[str, Tensor],
    processor: Processor,
    folder: Path,
    about: dict[str, Any],
) -> None:
    """A folder that `load_model`, `eval` and `ask` take; replaces an older one at once."""
    fresh = folder.with_name(folder.name + ".partial")
    shutil.rmtree(fresh, ignore_errors=True)
    with torch.device("meta"):
        shell = SpatialTTTForConditionalGeneration(config)
    if config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    dtype = next(iter(tensors.values())).dtype
    shell.save_pretrained(str(fresh), state_dict=tensors, max_shard_size="4GB")
    record = read_json(fresh / "config.json")
    record["dtype"] = str(dtype).removeprefix("torch.")
    (fresh / "config.json").write_text(json.dumps(record, indent=2) + "\n")
    processor.save_pretrained(fresh)
    (fresh / "training.json").write_text(json.dumps(about, indent=2) + "\n")
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def count_parameters(model: SpatialTTTForConditionalGeneration) -> tuple[int, int]:
    """(all, trained)."""
    parameters = cast(list[Tensor], list(model.parameters()))
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)
