"""From full attention to a window beside fast weights, as a run proceeds.

Training begins with a window over the whole context and without the fast weights, which is the full-attention model.
Then they come on (their gates are zero, so nothing jumps), and the window shrinks linearly to the configured one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import nn

from spatial_ttt.errors import ConfigError
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.ttt import TTTAttention
from spatial_ttt.train.schedule import annealed_window

MODES = ("annealed", "annealed_window", "hybrid", "window", "full")
"""How TTT layers attend: from full attention to the configured model, or to its window alone; as configured; the
window alone; everything."""
ANNEALED = MODES[:2]
WITHOUT_MEMORY = ("annealed_window", "window", "full")

WINDOW_STEP = 16  # a shrinking window is a multiple of this many tokens


class Reach(NamedTuple):
    """What TTT layers see at a moment of a run."""

    window: int  # tokens
    memory: bool  # the fast weights are on


@dataclass(frozen=True, kw_only=True, slots=True)
class Annealing:
    """Progress (0..1) at which fast weights come on and between which the window shrinks."""

    mode: str = "annealed"
    memory_from: float = 0.3
    shrink_from: float = 0.35
    shrink_until: float = 0.65
    first: int
    """Tokens of the window at the start: the longest context trained on before the window has shrunk."""
    last: int
    """Tokens of the configured window."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"attention must be one of {', '.join(MODES)}, got {self.mode!r}")
        if not 0 <= self.memory_from <= self.shrink_from < self.shrink_until <= 1:
            raise ConfigError(
                f"fast weights must come on before the window shrinks, and both within 0..1; got memory from "
                f"{self.memory_from}, shrinking from {self.shrink_from} until {self.shrink_until}"
            )

    def at(self, progress: float) -> Reach:
        """Window and memory at this progress."""
        if self.mode not in ANNEALED:
            return Reach(self.first if self.mode == "full" else self.last, self.mode == "hybrid")
        share = (progress - self.shrink_from) / (self.shrink_until - self.shrink_from)
        window = annealed_window(share, max(self.first, self.last), self.last)
        if share < 1:
            window = -(-window // WINDOW_STEP) * WINDOW_STEP
        return Reach(window, progress >= self.memory_from and self.mode == "annealed")


def ttt_layers(model: SpatialTTTForConditionalGeneration) -> list[TTTAttention]:
    """The attention of every TTT layer."""
    found = [layer.self_attn for layer in model.decoder.layers]
    return [attention for attention in found if isinstance(attention, TTTAttention)]


def set_reach(model: SpatialTTTForConditionalGeneration, reach: Reach) -> None:
    """Let every TTT layer see this much."""
    set_window(model, reach.window)
    for attention in ttt_layers(model):
        attention.memory_is_on = reach.memory


def set_window(model: SpatialTTTForConditionalGeneration, tokens: int) -> None:
    """Give every TTT layer a sliding window of so many tokens."""
    for attention in ttt_layers(model):
        if attention.config.window_size != tokens:
            attention.config = replace(attention.config, window_size=tokens)


def window_of(model: SpatialTTTForConditionalGeneration) -> int:
    """Tokens of the window the model has now."""
    layers = ttt_layers(model)
    return layers[0].config.window_size if layers else model.config.ttt_config.window_size


def close_gates(model: SpatialTTTForConditionalGeneration) -> None:
    """Make a model whose fast weights stay off the same when it is loaded with them on."""
    for attention in ttt_layers(model):
        if attention.ttt_scale_proj is None:
            raise ConfigError(
                "a model without gates (ttt.use_gate=false) has no way to leave its fast weights out; "
                "use --attention hybrid"
            )
        nn.init.zeros_(attention.ttt_scale_proj.weight)
        nn.init.zeros_(attention.ttt_scale_proj.bias)


def gates_are_closed(model: SpatialTTTForConditionalGeneration) -> bool:
    """Nothing of the fast weights is let through yet, as `close_gates` leaves a model."""
    gates = [attention.ttt_scale_proj for attention in ttt_layers(model)]
    parts = [part for gate in gates if gate is not None for part in gate.parameters()]
    return None not in gates and not any(bool(part.any()) for part in parts)
