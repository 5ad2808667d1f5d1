"""How often one owner may do something: a bucket that fills steadily."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from spatial_ttt.serve.problems import Problem

_BURST_S = 4.0
"""An owner who was quiet may use so many seconds' worth at once."""


class Bucket:
    """`rate` per second, and a burst."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._most = max(1.0, rate * _BURST_S)
        self._level = self._most
        self._at = clock()

    def wait_s(self) -> float:
        """Take one; seconds until it may be used (0: now)."""
        now = self._clock()
        self._level = min(self._most, self._level + (now - self._at) * self._rate) - 1.0
        self._at = now
        return max(0.0, -self._level / self._rate)

    def give_back(self) -> None:
        """The one that was taken is not used."""
        self._level += 1.0


class Limiter:
    """One bucket per owner."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._buckets: dict[str, Bucket] = {}

    def _bucket(self, owner: str) -> Bucket:
        if owner not in self._buckets:
            self._buckets[owner] = Bucket(self._rate)
        return self._buckets[owner]

    def check(self, owner: str) -> None:
        """Raise a 429 Problem with the seconds to wait, unless the owner may go on."""
        bucket = self._bucket(owner)
        wait = bucket.wait_s()
        if wait > 0:
            bucket.give_back()
            raise Problem(
                429,
                "too_fast",
                f"more than {self._rate:g} requests a second; try again in {wait:.2f} s",
                retry_after_s=round(wait, 3),
            )

    async def pace(self, owner: str) -> None:
        """Wait until the owner may go on: a stream is slowed down, not cut."""
        wait = self._bucket(owner).wait_s()
        if wait > 0:
            await asyncio.sleep(wait)
