"""What a training run is: one frozen `TrainConfig`, read from YAML, saved with every checkpoint.

file -> common keys, overlaid by the chosen stage's -> `--set a.b=c` -> TrainConfig
Every number of a run stands here; a key that nobody knows is refused and the nearest one named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from spatial_ttt.errors import ConfigError
from spatial_ttt.train.optim import GROUPS

LayerCount = int | Literal["all", "none"]
Gathered = Literal["step", "layer"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StartConfig:
    """Where the weights come from."""

    folder: str | None = None
    """Checkpoint folder: ours, or a stock Qwen3-VL (then `ttt` must name the rule). None: `preset`."""
    preset: str = "tiny"
    """Without a folder: a configuration by name, its weights and tokenizer made from the seed."""
    ttt: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `TTTConfig` that differ from the preset's or the paper's."""
    gate_bias: float = 0.0
    """Of fresh gates; 0 is the paper's, above 0 opens them for a model trained from nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FramesConfig:
    """Which frames of a video are watched."""

    fps: float | None = None
    """So many per second of the video, within `least` and `most`; None: `most` of every video."""
    least: int = 2
    most: int = 128
    """Evenly spread over what may be seen, first and last included; shorter videos give all they have."""
    size: tuple[int, int] | None = None
    """(height, width) in pixels; None: the model's own."""

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise ConfigError(
                f"data.frames wants 1 <= least <= most, got {self.least} and {self.most}"
            )
        if self.fps is not None and self.fps <= 0:
            raise ConfigError(f"data.frames.fps must be above 0, got {self.fps}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """What is trained on, and how much of it at a time."""

    files: tuple[str, ...]
    """JSON or JSONL files of samples, or folders that hold an examples.jsonl."""
    root: str | None = None
    """Folder that the samples' paths are relative to; None: the file's own."""
    only_types: tuple[str, ...] = ()
    """Keep only samples of these question types (none named: all)."""
    skip_types: tuple[str, ...] = ()
    """Leave out samples of these question types."""
    frames: FramesConfig = field(default_factory=FramesConfig)
    max_tokens: int = 65_536
    """Most tokens of a pack; samples packed together never see each other."""
    max_samples: int = 64
    """Most samples of a pack; 1 switches packing off."""
    packs_per_step: int = 8
    """Packs of one optimizer step, over all processes; the number of processes must divide it."""
    workers: int = 4
    """Threads that read videos, per process."""
    on_bad_sample: Literal["raise", "skip"] = "raise"
    """A sample that cannot be read ends the run, or is left out, told and counted; never replaced."""
    max_bad_samples: int = 100
    """With "skip": so many end the run after all."""

    def __post_init__(self) -> None:
        if not self.files:
            raise ConfigError("data.files names no file; give the path of an examples.jsonl")
        for name in ("max_tokens", "max_samples", "packs_per_step", "workers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"data.{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class RatesConfig:
    """AdamW and its rates."""

    learning_rate: Mapping[str, float | None]
    """Peak rate of "base" and "ttt" (convolution included), and, if they differ from base, of "head"
    (embeddings) and "vision"; 0 freezes a group. A tower that is not named trains in small models only."""
    weight_decay: float = 0.01
    """Of matrices; vectors have none."""
    betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    warmup_steps: int = 1000
    """Linear rise of the rates; at most a tenth of the run."""
    floor: float = 0.1
    """Share of the peak rates at the end of the cosine."""
    ema_decay: float = 0.0
    """Above 0: keep a moving average of the trained weights and export it."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.learning_rate) - set(GROUPS))
        if unknown or not {"base", "ttt"} <= set(self.learning_rate):
            raise ConfigError(
                f"optim.learning_rate wants base and ttt, and may name head and vision; got "
                f"{sorted(self.learning_rate)}"
            )
        if any(rate is not None and rate < 0 for rate in self.learning_rate.values()):
            raise ConfigError("optim.learning_rate holds a rate below 0; 0 freezes a group")
        if not 0.0 <= self.ema_decay < 1.0:
            raise ConfigError(f"optim.ema_decay must be in 0..1, got {self.ema_decay}")
        if self.max_grad_norm <= 0:
            raise ConfigError(f"optim.max_grad_norm must be positive, got {self.max_grad_norm}")


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowConfig:
    """The sliding window shrinks linearly from `first` to the model's own over `epochs`."""

    first: int
    """Tokens at the first step."""
    epochs: float
    """Epochs until the model's own window is reached."""

    def __post_init__(self) -> None:
        if self.first < 1 or self.epochs <= 0:
            raise ConfigError(
                f"window wants first >= 1 and epochs > 0, got {self.first} and {self.epochs}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraConfig:
    """Low-rank updates instead of whole matrices, for small machines."""

    rank: int = 0
    """0: off. Otherwise the base group is frozen and gets updates of this rank."""
    alpha: float = 16.0
    """The update is scaled by alpha / rank."""
    targets: tuple[str, ...] = (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    )  # fmt: skip
    """Names of the decoder's linear layers."""

    def __post_init__(self) -> None:
        if self.rank < 0 or self.alpha <= 0:
            raise ConfigError(
                f"lora wants rank >= 0 and alpha > 0, got {self.rank} and {self.alpha}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationConfig:
    """Held-out samples, answered with the truth at hand (teacher forcing)."""

    files: tuple[str, ...] = ()
    """As data.files; none: no validation."""
    every: int = 200
    """Steps between two looks."""
    packs: int = 8
    """Packs looked at, the same every time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One stage of one run."""

    out: str
    """Folder of the run; a stage writes into `out`/stageN."""
    start: StartConfig = field(default_factory=StartConfig)
    data: DataConfig
    optim: RatesConfig
    epochs: float = 1.0
    """Passes over the data."""
    max_steps: int | None = None
    """Stop after so many steps; the schedules are laid out for them."""
    window: WindowConfig | None = None
    """Anneal the sliding window; None: the model's own throughout."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    seed: int = 42
    device: str = "auto"
    """auto, cpu or cuda."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of activations and gathered weights; masters, moments, fast weights and reductions are float32."""
    checkpointed_layers: LayerCount = "all"
    """Decoder layers whose activations are made again in the backward pass."""
    gathered: Gathered = "step"
    """On several processes. `step`: weights are gathered once a step, and gradients of its packs summed before they are
    dealt out; takes six bytes a parameter more on every process. `layer`: both in every pack, layer by layer."""
    keep_newton_schulz: bool = False
    """Keep what the backward pass needs of Newton-Schulz instead of making it again (wide fast weights on a GPU; others
    do not change). The same results within rounding, for 15 GiB in packs of 22,400 tokens of the 2B model; a
    checkpointed layer takes its share (0.7 GiB) only while its own backward pass runs."""
    compile: bool = False
    """Compile the token-wise parts (GPU only): a minute at the start, faster steps."""
    log_every: int = 1
    """Steps between two lines of metrics.jsonl."""
    save_every: int = 500
    """Steps between two checkpoints; one is written at the end and on SIGTERM in any case."""
    keep: int = 2
    """Newest checkpoints that are kept."""

    def __post_init__(self) -> None:
        if self.epochs <= 0:
            raise ConfigError(f"epochs must be above 0, got {self.epochs}")
        if self.max_steps is not None and self.max_steps < 1:
            raise ConfigError(f"max_steps must be at least 1, got {self.max_steps}")
        for name in ("log_every", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
