"""Opening a model for use: a checkpoint folder, or the one that ships with the package."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import torch

from spatial_ttt.checkpoint import load_model
from spatial_ttt.errors import ConfigError
from spatial_ttt.inference import prepare
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.processor import FrameFormat, Processor

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).parent / "shipped"
"""Weights, configuration and tokenizer of the small trained model."""

SMALL_SIZE = (96, 128)
"""(height, width) of the small model's frames, pixels."""


class LoadedModel(NamedTuple):
    """A model ready for sessions."""

    model: SpatialTTTForConditionalGeneration
    processor: Processor
    name: str
    is_trained: bool


def open_model(
    folder: str | Path | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    size: tuple[int, int] | None = None,
) -> LoadedModel:
    """Load a checkpoint folder; None takes the shipped model.

    `device` "auto" takes a GPU if there is one; `dtype` "auto" is bfloat16 there and float32 on a CPU. `size`
    (height, width) resizes frames to something else than the checkpoint says.
    """
    target = resolve_device(device)
    precision = resolve_dtype(dtype, target)
    if folder is None and not (SHIPPED / "config.json").is_file():
        log.warning(
            "no trained model ships with this version yet: answers come from random weights"
        )
        return _random_small(target, precision, size)
    path = SHIPPED if folder is None else Path(folder)
    model = load_model(path, device=target, dtype=precision)
    prepare(model)
    return LoadedModel(model, Processor.from_pretrained(path, size=size), path.name, True)


def resolve_device(name: str) -> torch.device:
    """A device by name; "auto" takes a GPU if there is one. Raises ConfigError where it is missing."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"no device {name!r}; use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"device {name!r} was asked for, but this machine offers no CUDA; use --device cpu"
        )
    return device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """A precision by name: auto, float32, bfloat16 or float64."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in known:
        raise ConfigError(f"no precision {name!r}; use auto, {', '.join(known)}")
    return known[name]


def _random_small(
    device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None
) -> LoadedModel:
    from spatial_ttt.presets import TINY_VOCAB_SIZE, tiny
    from spatial_ttt.tokenizer import default_texts, token_ids, train_tokenizer

    tokenizer = train_tokenizer(default_texts(), TINY_VOCAB_SIZE)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SpatialTTTForConditionalGeneration(tiny(token_ids=token_ids(tokenizer)))
    processor = Processor(tokenizer, small_model_frames(size or SMALL_SIZE))
    return LoadedModel(model.to(device, dtype).eval(), processor, "random", False)


def small_model_frames(size: tuple[int, int] = SMALL_SIZE) -> FrameFormat:
    """The small model's patches: Qwen3-VL's, at its own frame size."""
    half = (0.5, 0.5, 0.5)
    return FrameFormat(
        patch_size=16,
        spatial_merge_size=2,
        size=size,
        max_pixels=size[0] * size[1],
        mean=half,
        std=half,
    )
