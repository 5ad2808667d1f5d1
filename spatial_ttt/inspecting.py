"""What a model is made of and what a session of it costs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from spatial_ttt.errors import ConfigError
from spatial_ttt.files import read_json
from spatial_ttt.loading import SHIPPED, SMALL_SIZE
from spatial_ttt.model.bounded_cache import bytes_of_policy, policy_within
from spatial_ttt.model.budget import StateBudget, state_budget
from spatial_ttt.model.configuration import SpatialTTTConfig
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.presets import PRESETS, preset
from spatial_ttt.processor import PAPER_SIZE, PROCESSOR_FILE

EXAMPLE_TOKENS = (10_000, 100_000, 1_000_000)
EXAMPLE_ANCHOR_BYTES = 256 << 20
"""What `--anchor-bytes` is shown for."""


@dataclass(frozen=True)
class Report:
    """One model, inspected."""

    name: str
    config: SpatialTTTConfig
    parameters: dict[str, int]
    size: tuple[int, int]
    budgets: dict[str, StateBudget]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        budgets = {
            dtype: asdict(b)
            | {"fixed": b.fixed, "total": {str(n): b.total(n) for n in EXAMPLE_TOKENS}}
            for dtype, b in self.budgets.items()
        }
        return {
            "name": self.name,
            "ttt": self.config.ttt_config.to_dict(),
            "parameters": self.parameters,
            "frame_size": list(self.size),
            "state_bytes": budgets,
        }

    def to_text(self) -> str:
        """For reading."""
        layers = self.config.hybrid_layers
        lines = [f"{self.name}: {layers.count('ttt')} TTT layers, {layers.count('anchor')} anchors"]
        lines += [f"  {k:20s} {v}" for k, v in self.config.ttt_config.to_dict().items()]
        lines.append("parameters")
        lines += [f"  {k:20s} {v:>15,}" for k, v in self.parameters.items()]
        height, width = self.size
        for dtype, budget in self.budgets.items():
            lines.append(f"bytes of a session, frames of {height}x{width} pixels, {dtype}")
            lines += [f"  {k:20s} {v:>15,}" for k, v in asdict(budget).items()]
            lines += [f"  after {n:>9,} tokens {budget.total(n):>14,}" for n in EXAMPLE_TOKENS]
            lines += self._bounded_lines(dtype, budget)
        return "\n".join(lines)

    def _bounded_lines(self, dtype: str, budget: StateBudget) -> list[str]:
        """The bounded modes: bytes for ever, and how many tokens the anchors keep of them."""
        lines = []
        for bits in (16, 8):
            policy = policy_within(
                EXAMPLE_ANCHOR_BYTES, self.config, getattr(torch, dtype), bits=bits
            )
            held = bytes_of_policy(policy, self.config, getattr(torch, dtype))
            lines.append(
                f"  --anchor-bytes {EXAMPLE_ANCHOR_BYTES} --anchor-bits {bits}: {budget.fixed + held:,} for ever, "
                f"the anchors keep {policy.max_tokens:,} tokens"
            )
        return lines


def inspect_model(source: Path | None, size: tuple[int, int] | None) -> Report:
    """Inspect a checkpoint folder, a preset's name, or (None) the shipped model; loads no weights."""
    name, config, own_size = _config_of(source)
    with torch.device("meta"):
        model = SpatialTTTForConditionalGeneration(config, allow_window_gap=True)
    size = size or own_size
    unit = config.vision_config.patch_size * config.vision_config.spatial_merge_size
    if size[0] % unit or size[1] % unit:
        raise ConfigError(
            f"frames of {size[0]}x{size[1]} pixels do not divide into tokens of {unit}x{unit} pixels"
        )
    grid = (size[0] // unit, size[1] // unit)
    budgets = {
        str(d).removeprefix("torch."): state_budget(config, grid, d)
        for d in (torch.bfloat16, torch.float32)
    }
    return Report(name, config, _parameters(model), size, budgets)


def _config_of(source: Path | None) -> tuple[str, SpatialTTTConfig, tuple[int, int]]:
    if source is None:
        source = SHIPPED if (SHIPPED / "config.json").is_file() else Path("tiny")
    if not source.is_dir() and str(source) in PRESETS:
        paper = str(source) == "spatial_ttt_2b"
        return str(source), preset(str(source)), PAPER_SIZE if paper else SMALL_SIZE
    values = read_json(source / "config.json")
    if values.get("model_type") != "spatial_ttt":
        raise ConfigError(
            f"{source} holds a {values.get('model_type')!r} model; wanted spatial_ttt"
        )
    size = PAPER_SIZE
    if (source / PROCESSOR_FILE).is_file():
        saved = read_json(source / PROCESSOR_FILE)["frames"]["size"]
        size = tuple(saved) if saved else PAPER_SIZE
    return source.name, SpatialTTTConfig.from_dict(values), size


def _parameters(model: SpatialTTTForConditionalGeneration) -> dict[str, int]:
    """Parameter counts by part; the tied head counts once."""
    parts = {"vision": 0, "embeddings": 0, "ttt branch": 0, "decoder": 0}
    for name, value in model.named_parameters():
        if ".visual." in name:
            key = "vision"
        elif "embed_tokens" in name or name.startswith("lm_head"):
            key = "embeddings"
        elif ".self_attn." in name and not any(
            f".{p}" in name for p in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")
        ):
            key = "ttt branch"
        else:
            key = "decoder"
        if not (name == "lm_head.weight" and model.config.tie_word_embeddings):
            parts[key] += value.numel()
    return parts | {"all": sum(parts.values())}
