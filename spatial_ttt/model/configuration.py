"""The configuration of a Spatial-TTT model: Qwen3-VL's, plus one frozen `TTTConfig`.

Every number that changes what the network computes stands here and is saved with the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal

import torch
from transformers import AutoConfig, Qwen3VLConfig

from spatial_ttt.errors import ConfigError

LayerType = Literal["ttt", "anchor"]
NormPlacement = Literal["pre", "post"]
Convolution = Literal["centred", "causal", "none"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "norm_placement": ("pre", "post"),
    "convolution": ("centred", "causal", "none"),
    "newton_schulz_dtype": ("bfloat16", "float32"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TTTConfig:
    """What a TTT layer computes. No field has a default: presets and checkpoints name every one."""

    layer_pattern: tuple[LayerType, ...]
    """Repeated over the decoder's layers; the paper's is ttt, ttt, ttt, anchor."""
    num_fast_heads: int
    """Fast-weight heads; each spans hidden_size / num_fast_heads neighbouring channels."""
    chunk_size: int
    """Tokens per write of the fast weights."""
    window_size: int
    """Tokens a query sees in sliding-window attention, itself included."""
    use_muon: bool
    """Orthogonalise each write with Newton-Schulz."""
    norm_placement: NormPlacement
    """"post": normalise the rows of the weights in place; "pre": keep an unnormalised master."""
    use_momentum: bool
    """Carry a share of the last write into the next."""
    convolution: Convolution
    """Spatial-predictive 3x3x3 convolution: centred in time (the paper's), causal, or none."""
    use_gate: bool
    """Scale the branch by a learned gate that is zero at the start; without it the scale is 1."""
    low_rank: int
    """0: gate and up are full matrices; r > 0: initial value = left @ right + 0.5 I of rank r."""
    base_lr: float
    """Inner learning rate of a token whose `lr_proj` output is zero."""
    newton_schulz_dtype: Literal["bfloat16", "float32"]
    """Precision of the Newton-Schulz products in half-precision models; others use their own."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layer_pattern", tuple(self.layer_pattern))
        unknown = sorted(set(self.layer_pattern) - {"ttt", "anchor"})
        if unknown or not self.layer_pattern:
            raise ConfigError(
                f"ttt.layer_pattern holds {unknown or 'nothing'}; use 'ttt' and 'anchor'"
            )
        for name, least in (
            ("num_fast_heads", 1),
            ("chunk_size", 1),
            ("window_size", 1),
            ("low_rank", 0),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(
                    f"ttt.{name} must be an integer of at least {least}, got {value!r}"
                )
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"ttt.{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}"
                )
        for name in ("use_muon", "use_momentum", "use_gate"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"ttt.{name} must be true or false, got {getattr(self, name)!r}")
        if self.base_lr <= 0:
            raise ConfigError(f"ttt.base_lr must be positive, got {self.base_lr}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TTTConfig:
        """Build from a mapping that names every field; raises ConfigError on a missing or unknown one."""
        known = [f.name for f in fields(cls)]
        for name in values:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
                raise ConfigError(f"ttt has no field {name!r}{hint}")
        missing = [name for name in known if name not in values]
        if missing:
            raise ConfigError(
                f"ttt lacks {', '.join(missing)}: every field decides what the network computes, name it"
            )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        values = asdict(self)
        values["layer_pattern"] = list(self.layer_pattern)
        return values

    def layer_types(self, num_layers: int) -> tuple[LayerType, ...]:
        """The pattern repeated over `num_layers` layers."""
        return tuple(self.layer_pattern[i % len(self.layer_pattern)] for i in range(num_layers))


def paper_ttt_config(**changes: Any) -> TTTConfig:
    """The paper's 2B setting (section 3): Muon, post-norm, momentum, chunk = window = 2648."""
    values: dict[str, Any] = {
        "layer_pattern": ("ttt", "ttt", "ttt", "anchor"),
        "num_fast_heads": 4,
        "chunk_size": 2648,
        "window_size": 2648,
        "use_muon": True,
        "norm_placement": "post",
        "use_momentum": True,
        "convolution": "centred",
        "use_gate": True,
        "low_rank": 0,
        "base_lr": 0.001,
        "newton_schulz_dtype": "bfloat16",
    }
    return TTTConfig.from_dict(values | changes)


class SpatialTTTConfig(Qwen3VLConfig):  # type: ignore[misc]
    """Qwen3-VL's configuration with a `ttt` mapping (see `TTTConfig`)."""

    model_type = "spatial_ttt"
    ttt: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.ttt is not None:
            _check_fit(TTTConfig.from_dict(self.ttt), self.text_config)

    @property
    def ttt_config(self) -> TTTConfig:
        """The validated TTT settings; raises ConfigError where the file names none."""
        if self.ttt is None:
            raise ConfigError(
                "this configuration names no ttt settings: it is a stock Qwen3-VL; import it with an explicit rule"
            )
        return TTTConfig.from_dict(self.ttt)

    @property
    def hybrid_layers(self) -> tuple[LayerType, ...]:
        """ "ttt" or "anchor" for every decoder layer."""
        return self.ttt_config.layer_types(self.text_config.num_hidden_layers)


def _check_fit(ttt: TTTConfig, text: Any) -> None:
    width = text.num_attention_heads * text.head_dim
    if width != text.hidden_size:
        raise ConfigError(
            f"a TTT layer needs num_attention_heads * head_dim == hidden_size, got "
            f"{text.num_attention_heads} * {text.head_dim} = {width} != {text.hidden_size}"
        )
    if text.hidden_size % ttt.num_fast_heads:
        raise ConfigError(
            f"hidden_size {text.hidden_size} does not divide into ttt.num_fast_heads {ttt.num_fast_heads}"
        )
    fast_dim = text.hidden_size // ttt.num_fast_heads
    if fast_dim < text.head_dim:
        raise ConfigError(
            f"a fast head of {fast_dim} channels is narrower than head_dim {text.head_dim}, "
            f"so RoPE does not fit; use at most {text.hidden_size // text.head_dim} fast heads"
        )


def check_window_covers_chunk(ttt: TTTConfig) -> None:
    """Inside a chunk only the window sees earlier tokens: refuse a window that leaves a gap.

    Called where a model is made for use; the equations themselves do not need it (the golden vectors
    hold a window smaller than its chunk).
    """
    if ttt.window_size < ttt.chunk_size:
        raise ConfigError(
            f"ttt.window_size {ttt.window_size} is smaller than ttt.chunk_size {ttt.chunk_size}: tokens would be "
            f"seen neither by attention nor by the fast weights; widen the window or pass allow_window_gap=True"
        )


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """Precision of the fast weights beside activations of `dtype`: at least float32."""
    return torch.promote_types(dtype, torch.float32)


AutoConfig.register("spatial_ttt", SpatialTTTConfig, exist_ok=True)
