"""A loader whose packs are all the same."""

from __future__ import annotations

from collections.abc import Iterable

from spatial_ttt.train.dataset import LoadedPack, LoadedSample


class Repeated:
    """One pack, again and again, ready at once; `pinned` as in `PackLoader`."""

    def __init__(self, samples: Iterable[LoadedSample], *, pinned: bool) -> None:
        self.samples = tuple(sample.pinned() if pinned else sample for sample in samples)

    def ready(self) -> tuple[LoadedSample, ...]:
        """Samples of the next pack."""
        return self.samples

    def next_pack(self) -> LoadedPack:
        """The next pack."""
        return LoadedPack(self.samples, 0)
