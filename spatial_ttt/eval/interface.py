"""What the evaluator needs of a model: sessions that observe, fork and answer, and a card.

`SessionOptions` are the switches a model offers to the controls. A model that lacks one raises
`NotOffered` in `open_session`; it never falls back in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal, Protocol, Self, runtime_checkable

from spatial_ttt.errors import ConfigError
from spatial_ttt.video.frame import Frame


class NotOffered(ConfigError):
    """The model lacks a switch that a control needs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionOptions:
    """How a session watches and remembers. The defaults are the model as it is."""

    mode: Literal["streamed", "offline"] = "streamed"
    """`offline`: keep the frames and run one whole forward per question; no state is carried."""
    memory: Literal["on", "off", "reset"] = "on"
    """`off`: the gate of every TTT branch is 0; `reset`: fast weights start anew at each chunk."""
    attention: Literal["hybrid", "window_only", "full"] = "hybrid"
    """`window_only`: no TTT branch, and anchors see only the window; `full`: no TTT branch, and
    every layer attends to everything, as the base model does."""
    anchors: Literal["full", "bounded"] = "full"
    """`bounded`: anchors keep `anchor_budget_bytes` of keys and values by the model's own rule."""
    anchor_budget_bytes: int | None = None
    system_prompt: str | None = None
    """Put before the stream; None for none, as in training."""

    def __post_init__(self) -> None:
        if (self.anchors == "bounded") != (self.anchor_budget_bytes is not None):
            raise ConfigError(
                f"anchors={self.anchors!r} with anchor_budget_bytes={self.anchor_budget_bytes}: "
                "bounded anchors need a budget in bytes, full ones take none"
            )

    def changes(self) -> dict[str, object]:
        """The options that differ from the defaults, for reports."""
        defaults = asdict(SessionOptions())
        return {key: value for key, value in asdict(self).items() if value != defaults[key]}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCard:
    """Which model answered; written into every report."""

    name: str
    checkpoint: str
    """Path or name it was loaded from."""
    checkpoint_hash: str
    """SHA-256 of the weights, or of whatever decides the replies."""
    rule: str
    """Update rule of the fast weights, e.g. "muon, post-norm"."""
    dtype: str


class EvalSession(Protocol):
    """One viewer's stream."""

    def observe(self, frames: Iterable[Frame]) -> object:
        """Watch frames in order of time; may be called any number of times."""
        ...

    def ask(self, question: str, *, max_new_tokens: int) -> Iterator[str]:
        """Stream the greedy reply to `question`."""
        ...

    def fork(self) -> Self:
        """A copy that may be asked and dropped; the original goes on as if nothing had been."""
        ...

    def close(self) -> None:
        """Free the session's state."""
        ...


@runtime_checkable
class MemoryAdopter(Protocol):
    """A session whose fast weights can be replaced: needed by the `other_memory` control only."""

    def adopt_memory(self, donor: object) -> None:
        """Take the donor session's fast weights, and keep one's own keys and values."""
        ...


class SpatialModel(Protocol):
    """A model under evaluation."""

    @property
    def card(self) -> ModelCard:
        """Who this is."""
        ...

    def open_session(self, options: SessionOptions) -> EvalSession:
        """A fresh stream; `NotOffered` when the model lacks an option."""
        ...
