"""From the command line of `tiny` to a model, its optimizers and its workers."""

from __future__ import annotations

import argparse
import copy
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spatial_ttt.checkpoint import load_model
from spatial_ttt.errors import ConfigError
from spatial_ttt.eval.profiles import load_profile
from spatial_ttt.model.configuration import TTTConfig
from spatial_ttt.model.kernels import resolve_backend
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.presets import preset
from spatial_ttt.tokenizer import token_ids
from spatial_ttt.train.annealing import (
    ANNEALED,
    WITHOUT_MEMORY,
    Annealing,
    close_gates,
    gates_are_closed,
)
from spatial_ttt.train.curriculum import Stage, stages_between
from spatial_ttt.train.draw import best_caster
from spatial_ttt.train.initialise import initialise
from spatial_ttt.train.optim import OptimConfig
from spatial_ttt.train.pool import ClipSource

log = logging.getLogger(__name__)


def start_workers(
    chosen: argparse.Namespace, tokenizer_file: Path, device: torch.device
) -> ClipSource:
    """The workers and the ray caster that serves them."""
    profile = load_profile("paper")
    caster, name = best_caster(device, chosen.samples)
    log.info("ray caster: %s, %d workers", name, chosen.workers)
    arguments = (str(tokenizer_file), (profile.number, profile.choice))
    return ClipSource(chosen.workers, arguments, caster)


def make_model(
    chosen: argparse.Namespace, tokenizer: Any, resumed: Path | None
) -> SpatialTTTForConditionalGeneration:
    """A fresh model, or the one of an earlier run, with its TTT configuration changed where that is asked for."""
    if resumed is not None:
        log.info("going on from %s (momentum and read-outs start anew)", chosen.resume)
        model = load_model(resumed, dtype=torch.float32)
        if chosen.ttt:
            model = _changed(model, chosen)
        if chosen.attention in ANNEALED and not gates_are_closed(model):
            raise ConfigError(
                f"--attention {chosen.attention} begins without fast weights, but {chosen.resume} was trained with "
                f"them; go on with hybrid, or resume a run of --attention full or window"
            )
    else:
        config = preset(chosen.preset, token_ids=token_ids(tokenizer), **_fields(chosen.ttt))
        model = SpatialTTTForConditionalGeneration(config)
        initialise(model, chosen.seed, chosen.gate_bias)
    if chosen.attention in WITHOUT_MEMORY:
        close_gates(model)
    return model


def _changed(
    old: SpatialTTTForConditionalGeneration, chosen: argparse.Namespace
) -> SpatialTTTForConditionalGeneration:
    """The same weights in a model with another TTT configuration; what the old one lacks is drawn from the seed."""
    config = copy.deepcopy(old.config)
    config.ttt = TTTConfig.from_dict(
        old.config.ttt_config.to_dict() | _fields(chosen.ttt)
    ).to_dict()
    model = SpatialTTTForConditionalGeneration(config)
    initialise(model, chosen.seed, chosen.gate_bias)
    fresh, given = model.state_dict(), old.state_dict()
    kept = {k: v for k, v in given.items() if k in fresh and fresh[k].shape == v.shape}
    model.load_state_dict(kept, strict=False)
    log.info(
        "%d tensors carried over, %d left behind, %d drawn anew",
        len(kept),
        len(given) - len(kept),
        len(fresh) - len(kept),
    )
    return model


def make_annealing(
    chosen: argparse.Namespace, stages: Sequence[Stage], contexts: Mapping[str, int], window: int
) -> Annealing:
    """How the run's attention changes; `contexts` are the longest of each stage, in tokens."""
    stop = chosen.shrink[1] if chosen.attention in ANNEALED else 1.0
    trained = stages_between(tuple(stages), chosen.begin, stop)
    return Annealing(
        mode=chosen.attention,
        memory_from=chosen.memory_from,
        shrink_from=chosen.shrink[0],
        shrink_until=chosen.shrink[1],
        first=max(contexts[stage.name] for stage in trained),
        last=window,
    )


def optim_config(chosen: argparse.Namespace) -> OptimConfig:
    """One rate for all groups: everything is learned from nothing."""
    return OptimConfig(
        learning_rate=dict.fromkeys(("base", "ttt", "vision", "head"), chosen.learning_rate),
        weight_decay=0.05,
        betas=(0.9, 0.95),
        max_grad_norm=1.0,
        use_muon=not chosen.no_muon_optimizer,
    )


def pick_device(name: str) -> torch.device:
    """A device by name; "auto" is the GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def wants_compiling(chosen: argparse.Namespace, device: torch.device) -> bool:
    """Token-wise parts are compiled: as asked, else on a GPU."""
    return device.type == "cuda" if chosen.compile is None else bool(chosen.compile)


def check_kernels(device: torch.device, dtype: torch.dtype) -> None:
    """Raise ConfigError now, not when the fast weights come on, where kernels were asked for and cannot run."""
    for operation in ("mixing", "network", "convolution", "scan"):
        resolve_backend(operation, device, dtype)


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """A dtype by name; "auto" is bfloat16 on a GPU."""
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" else "float32"
    return getattr(torch, name)


def count_parameters(model: nn.Module) -> str:
    """Millions of weights, in words."""
    return f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M"


def _fields(pairs: list[str]) -> dict[str, Any]:
    """Changes of the TTT configuration, each given as KEY=VALUE."""
    fields = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign:
            raise ConfigError(f"--ttt {pair} has no value; write --ttt {pair}=VALUE")
        fields[key] = _value(value)
    return fields


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
