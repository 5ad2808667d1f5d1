"""Controls: the same questions with something taken away, to see what the score was made of.

Some change what is shown (the evaluator does it), some change the model (`SessionOptions`). Run one
with `--control NAME`; compare it with the plain run by `spatial-ttt eval compare`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from spatial_ttt.errors import ConfigError
from spatial_ttt.eval.benchmarks.item import BenchmarkItem
from spatial_ttt.eval.interface import SessionOptions

Shown = Literal["clip", "nothing", "one_frame", "twice", "other_clip", "segments"]

COUNTING_TYPES = ("object_counting", "vsc", "vsc_streaming")
"""Questions whose answer must not double when the clip is played twice, and can be summed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Control:
    """One switch of the evaluator."""

    name: str
    about: str
    shown: Shown = "clip"
    options: SessionOptions = field(default_factory=SessionOptions)
    swaps_memory: bool = False
    """Before each question the fork takes the fast weights of a session that saw another clip."""
    counting_only: bool = False

    def takes(self, item: BenchmarkItem) -> bool:
        """Whether this control says anything about the item."""
        return not self.counting_only or item.question_type in COUNTING_TYPES

    def session_options(
        self, settings: ControlSettings, system_prompt: str | None
    ) -> SessionOptions:
        """The model's switches for this control."""
        options = replace(self.options, system_prompt=system_prompt)
        if self.name == "bounded_anchors":
            options = replace(
                options, anchors="bounded", anchor_budget_bytes=settings.anchor_budget_bytes
            )
        return options


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlSettings:
    """The numbers some controls need."""

    segment_frames: int = 600
    """Frames per fresh run of `segment_and_sum`; 600 is what the released evaluator used."""
    anchor_budget_bytes: int = 1 << 30
    """Keys and values `bounded_anchors` may keep, all anchor layers together."""

    def __post_init__(self) -> None:
        if self.segment_frames < 1 or self.anchor_budget_bytes < 1:
            raise ConfigError(
                f"segment_frames and anchor_budget_bytes must be at least 1, "
                f"got {self.segment_frames} and {self.anchor_budget_bytes}"
            )


_ALL = (
    Control(name="none", about="the model as it is, streamed"),
    Control(name="blind", about="no video at all: what the questions give away", shown="nothing"),
    Control(name="one_frame", about="the middle frame only", shown="one_frame"),
    Control(
        name="memory_off",
        about="every TTT gate at 0; window attention and anchors stay",
        options=SessionOptions(memory="off"),
    ),
    Control(
        name="memory_reset",
        about="fast weights start anew at each chunk: nothing is carried between chunks",
        options=SessionOptions(memory="reset"),
    ),
    Control(
        name="other_memory",
        about="fast weights of another video, keys and values of this one",
        swaps_memory=True,
    ),
    Control(name="other_clip", about="another video altogether", shown="other_clip"),
    Control(
        name="window_only",
        about="window attention alone: no TTT branch, anchors see only the window",
        options=SessionOptions(attention="window_only"),
    ),
    Control(
        name="full_attention",
        about="no TTT branch, every layer attends to everything",
        options=SessionOptions(attention="full"),
    ),
    Control(name="bounded_anchors", about="anchors keep a fixed budget of keys and values"),
    Control(
        name="offline",
        about="one whole forward per question; must equal the streamed run",
        options=SessionOptions(mode="offline"),
    ),
    Control(
        name="played_twice",
        about="the clip is shown twice in a row: a count must not double",
        shown="twice",
        counting_only=True,
    ),
    Control(
        name="segment_and_sum",
        about="fresh runs over pieces of the clip, their counts added: no memory needed",
        shown="segments",
        counting_only=True,
    ),
)
CONTROLS = {control.name: control for control in _ALL}


def find_control(name: str) -> Control:
    """The control of this name."""
    if name not in CONTROLS:
        raise ConfigError(f"no control {name!r}; known: {', '.join(CONTROLS)}")
    return CONTROLS[name]


def chosen_controls(names: str) -> list[str]:
    """Control names from "all" or "blind,offline"; the plain run "none" always comes first."""
    wanted = list(CONTROLS) if names == "all" else [name for name in names.split(",") if name]
    return ["none", *(find_control(name).name for name in wanted if name != "none")]
