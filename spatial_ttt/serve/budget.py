"""Bytes a session will take, known before it is opened, and who was promised how many."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spatial_ttt.loading import LoadedModel
from spatial_ttt.model.bounded_cache import AnchorPolicy, bytes_of_policy, policy_within
from spatial_ttt.model.budget import StateBudget, state_budget
from spatial_ttt.processor import FRAMES_PER_SLOT, VISION_START
from spatial_ttt.serve.problems import Problem

_ENGINE_STATES = 2
"""States that an engine works in: one where captured work finds it, one that has not its shapes yet."""
_LONGEST_STAMP = "<9999999.9 seconds>"


@dataclass(frozen=True, slots=True)
class SessionBudget:
    """The price of a session of one model."""

    state: StateBudget
    tokens_per_slot: int
    prefix_tokens: int
    anchors: AnchorPolicy | None
    """What bounded anchors keep; None: everything, and a session grows."""
    anchor_bytes: int
    """Most bytes of bounded anchors; 0 where they grow."""

    def bytes_for(self, num_frames: int) -> int:
        """Most bytes of decoder state after so many frames."""
        if self.anchors is not None:
            return self.state.fixed + self.anchor_bytes
        slots = math.ceil(num_frames / FRAMES_PER_SLOT)
        return self.state.total(self.prefix_tokens + slots * self.tokens_per_slot)

    @property
    def engine_bytes(self) -> int:
        """About what an engine that sessions share keeps for itself, before that can be measured."""
        return _ENGINE_STATES * self.state.fixed


def session_budget(loaded: LoadedModel, anchor_bytes: int | None = None) -> SessionBudget:
    """The price of a session of `loaded`, whatever frames come; `anchor_bytes` bounds its anchors."""
    frames = loaded.processor.frames
    if frames.size is not None:
        grid = (frames.size[0] // frames.unit, frames.size[1] // frames.unit)
    else:  # any shape within max_pixels: none has more tokens than the area allows
        grid = (1, max(1, frames.max_pixels // frames.unit**2))
    stamp = len(loaded.processor.encode(_LONGEST_STAMP + VISION_START)) + 1
    dtype = next(loaded.model.parameters()).dtype
    state = state_budget(loaded.model.config, grid, dtype, text_per_slot=stamp)
    prefix, per_slot = len(loaded.processor.prefix_ids), stamp + grid[0] * grid[1]
    if anchor_bytes is None:
        return SessionBudget(state, per_slot, prefix, None, 0)
    config = loaded.model.config
    policy = policy_within(anchor_bytes, config, dtype)
    return SessionBudget(state, per_slot, prefix, policy, bytes_of_policy(policy, config, dtype))


class Ledger:
    """Promises against one number of bytes; a promise is made whole or not at all."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.aside = 0
        """Bytes in use beside the sessions, which nobody is promised."""
        self._promised: dict[str, int] = {}

    @property
    def room(self) -> int:
        """Most bytes that may be promised."""
        return self.total - self.aside

    def set_aside(self, wanted: int) -> None:
        """Keep so many bytes for what no session owns; who was promised room keeps it, and `aside` never shrinks."""
        self.aside = max(self.aside, wanted)

    @property
    def promised(self) -> int:
        """Bytes given away."""
        return sum(self._promised.values())

    def of(self, name: str) -> int:
        """Bytes promised to `name`."""
        return self._promised.get(name, 0)

    def promise(self, name: str, wanted: int) -> None:
        """Keep `wanted` bytes for `name`, in place of what it had; raises a 503 Problem with the budget."""
        others = self.promised - self.of(name)
        free = max(0, self.room - others)
        if wanted > free:
            raise Problem(
                503,
                "no_room",
                f"the session would need {wanted} bytes, {free} of {self.total} are free; "
                f"close a session, ask for fewer frames, or try again later",
                wanted_bytes=wanted,
                free_bytes=free,
                budget_bytes=self.total,
            )
        self._promised[name] = wanted

    def release(self, name: str) -> None:
        """Take a promise back."""
        self._promised.pop(name, None)
