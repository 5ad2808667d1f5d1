"""Low-rank updates of the decoder's linear layers, for machines that cannot hold a whole optimizer.

The frozen weight keeps its name, so a model with LoRA is merged by adding the update and dropping it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spatial_ttt.errors import ConfigError
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.train.run_config import LoraConfig

DOWN, UP = "lora_down", "lora_up"


class LoraLinear(nn.Linear):
    """weight x + scale * up (down x); `up` is zero at the start."""

    def __init__(
        self, base: nn.Linear, rank: int, scale: float, generator: torch.Generator
    ) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.scale = scale
        down = torch.empty(rank, base.in_features).normal_(
            std=1 / math.sqrt(base.in_features), generator=generator
        )
        self.lora_down = nn.Parameter(down)
        self.lora_up = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        update = F.linear(F.linear(input, self.lora_down), self.lora_up)
        return F.linear(input, self.weight, self.bias) + self.scale * update


def add_lora(model: SpatialTTTForConditionalGeneration, config: LoraConfig, seed: int) -> int:
    """Replace the targets by `LoraLinear`; returns how many. Raises ConfigError for unknown targets."""
    generator = torch.Generator().manual_seed(seed)
    found: set[str] = set()
    count = 0
    for layer in model.decoder.layers:
        for module in list(layer.modules()):
            for name, child in list(module.named_children()):
                if name in config.targets and isinstance(child, nn.Linear):
                    scale = config.alpha / config.rank
                    setattr(module, name, LoraLinear(child, config.rank, scale, generator))
                    found.add(name)
                    count += 1
    missing = sorted(set(config.targets) - found)
    if missing:
        raise ConfigError(
            f"lora.targets names {', '.join(missing)}, which no decoder layer has as a linear layer"
        )
    return count


def merge_lora(tensors: dict[str, Tensor], config: LoraConfig) -> dict[str, Tensor]:
    """Weights by name with every update added to its matrix."""
    merged = {name: value for name, value in tensors.items() if not name.endswith((DOWN, UP))}
    for name, down in tensors.items():
        if not name.endswith(DOWN):
            continue
        stem = name.removesuffix(DOWN)
        weight = merged[stem + "weight"]
        update = tensors[stem + UP].float() @ down.float() * (config.alpha / config.rank)
        merged[stem + "weight"] = (weight.float() + update).to(weight.dtype)
    return merged
