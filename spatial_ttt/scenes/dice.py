"""Seeded chance that gives the same draws on every machine.

Only raw uniform doubles of PCG64 are used, turned into what is asked for with plain arithmetic:
no normal tables, no compiler-dependent fused arithmetic, no hashing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from numpy.random import PCG64, Generator, SeedSequence

T = TypeVar("T")
_BLOCK = 256


class Dice:
    """A stream of random choices. Two dice made from the same numbers roll the same."""

    def __init__(self, *entropy: int) -> None:
        self._generator = Generator(PCG64(SeedSequence(entropy)))
        self._block: list[float] = []

    def random(self) -> float:
        """Uniform in [0, 1)."""
        if not self._block:
            self._block = self._generator.random(_BLOCK).tolist()
        return self._block.pop()

    def uniform(self, low: float, high: float) -> float:
        """Uniform in [low, high), rounded to a tenth of a millimetre (or 1e-4 of another unit)."""
        return round(low + (high - low) * self.random(), 4)

    def below(self, count: int) -> int:
        """Uniform in 0 .. count - 1."""
        return int(self.random() * count)

    def between(self, low: int, high: int) -> int:
        """Uniform in low .. high, both included."""
        return low + self.below(high - low + 1)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.random() < probability

    def sign(self) -> int:
        """-1 or 1."""
        return 1 if self.random() < 0.5 else -1

    def pick(self, items: Sequence[T]) -> T:
        """One of the items, all equally likely."""
        return items[self.below(len(items))]

    def weighted(self, items: Sequence[tuple[T, float]]) -> T:
        """One of the (item, weight) pairs' items, as likely as its weight."""
        rest = self.random() * sum(weight for _, weight in items)
        for item, weight in items:
            rest -= weight
            if rest < 0.0:
                return item
        return items[-1][0]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in random order (Fisher-Yates)."""
        out = list(items)
        for last in range(len(out) - 1, 0, -1):
            other = self.below(last + 1)
            out[last], out[other] = out[other], out[last]
        return out
