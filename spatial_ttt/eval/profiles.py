"""Prompt profiles: the texts around a question, kept as data in `prompts/*.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

from spatial_ttt.errors import ConfigError
from spatial_ttt.eval.benchmarks.item import BenchmarkItem

PROFILES = ("paper", "authors")
FrameTimes = Literal["true", "fake_24fps"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """How questions are worded and frames are stamped. `prompts/NAME.json` holds each field."""

    name: str
    version: int
    about: str
    system_prompt: str | None
    frame_times: FrameTimes
    """`true`: seconds of the clip; `fake_24fps`: frame k is stamped k/24 s, whatever its time."""
    opening: str
    """Put before VSI-Bench and VSI-SUPER questions that do not start with it already."""
    suffix: str
    """Put after every prompt."""
    number: str
    choice: str
    mindcube: str

    @property
    def label(self) -> str:
        """Name and version, as reports record it."""
        return f"{self.name} v{self.version}"


@cache
def load_profile(name: str) -> Profile:
    """The profile of this name."""
    if name not in PROFILES:
        raise ConfigError(f"no prompt profile {name!r}; known: {', '.join(PROFILES)}")
    text = (
        resources.files("spatial_ttt.eval").joinpath("prompts", f"{name}.json").read_text("utf-8")
    )
    return Profile(**json.loads(text))


def build_prompt(item: BenchmarkItem, profile: Profile) -> str:
    """The full user text for an item. A dataset's own prompt is taken as it is."""
    if item.prompt is not None:
        return item.prompt + profile.suffix
    if item.kind == "mindcube_choice":
        return profile.mindcube.format(question=item.question) + profile.suffix
    question = item.question
    if not question.startswith(profile.opening):
        question = profile.opening + question
    template = profile.choice if item.kind == "choice" else profile.number
    return template.format(question=question, options="\n".join(item.options)) + profile.suffix
