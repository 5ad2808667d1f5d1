"""Which samples are trained together in which step: a function of the seed alone.

    epoch -> a shuffled order -> packs of at most `max_tokens` -> steps of `packs_per_step` packs
    step  -> process r of n takes packs r, r + n, r + 2 n, ... of it

The number of processes only deals the packs out, so any number of them trains on the same steps.
Every record comes once an epoch; the last step of an epoch may be short.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from spatial_ttt.errors import ConfigError
from spatial_ttt.train.run_config import DataConfig
from spatial_ttt.train.samples import SampleIndex

Unit = tuple[int, ...]
"""Numbers of the records of one pack."""


class StepPlan:
    """Every step of a run."""

    def __init__(
        self,
        index: SampleIndex,
        config: DataConfig,
        seed: int,
        epochs: float,
        max_steps: int | None,
    ) -> None:
        self._tokens = [int(n) for n in index.most_tokens]
        self._samples = [int(n) for n in index.num_samples]
        self._config = config
        self._seed = seed
        self._epoch = lru_cache(maxsize=2)(self._pack_epoch)
        whole = int(epochs)
        self._starts = [0]  # first step of each epoch
        for epoch in range(whole + (epochs > whole)):
            steps = -(-len(self._epoch(epoch)) // config.packs_per_step)
            self._starts.append(self._starts[-1] + steps)
        total = self._starts[-1]
        if epochs > whole:
            last = self._starts[-1] - self._starts[-2]
            total = self._starts[-2] + max(1, round(last * (epochs - whole)))
        self.num_steps = min(total, max_steps) if max_steps is not None else total

    def epoch_of(self, step: int) -> float:
        """Epochs done when `step` begins, with its fraction."""
        epoch = self._epoch_index(step)
        first, following = self._starts[epoch], self._starts[epoch + 1]
        return epoch + (step - first) / (following - first)  # also right at the very end

    def packs(self, step: int) -> list[Unit]:
        """The packs of one step, fewer than `packs_per_step` at the end of an epoch."""
        epoch = self._epoch_index(step)
        first = (step - self._starts[epoch]) * self._config.packs_per_step
        return self._epoch(epoch)[first : first + self._config.packs_per_step]

    def share(self, step: int, rank: int, world: int) -> list[Unit]:
        """One process's packs of a step; empty ones fill up so that all processes have as many."""
        size = self._config.packs_per_step
        if size % world:
            raise ConfigError(
                f"data.packs_per_step {size} does not divide among {world} processes; "
                f"choose a multiple of {world}"
            )
        packs = self.packs(step)
        packs += [()] * (size - len(packs))
        return packs[rank::world]

    def _epoch_index(self, step: int) -> int:
        index = int(np.searchsorted(self._starts, step, side="right")) - 1
        return min(index, len(self._starts) - 2)

    def _pack_epoch(self, epoch: int) -> list[Unit]:
        rng = np.random.default_rng([self._seed, epoch])
        packs: list[Unit] = []
        current: list[int] = []
        tokens = samples = 0
        for number in rng.permutation(len(self._tokens)).tolist():
            more, count = self._tokens[number], self._samples[number]
            is_full = tokens + more > self._config.max_tokens
            if current and (is_full or samples + count > self._config.max_samples):
                packs.append(tuple(current))
                current, tokens, samples = [], 0, 0
            current.append(number)
            tokens, samples = tokens + more, samples + count
        packs.append(tuple(current))
        return packs
