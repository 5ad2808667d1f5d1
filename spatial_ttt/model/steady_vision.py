"""The vision tower of a steady stream: one graph per number of slots and frame size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from spatial_ttt.model.kernels.captured import Graphs
from spatial_ttt.model.layers import taken
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.steady_graphs import keep_latest
from spatial_ttt.model.vision import VisionTokens

Encode = Callable[[], VisionTokens]


class SteadyVision:
    """Encodes slots as `model.encode` does, replayed from the second time on; not for two threads at once."""

    def __init__(self, model: SpatialTTTForConditionalGeneration, graphs: Graphs) -> None:
        self._model, self._graphs = model, graphs
        self._known: dict[Any, tuple[Tensor, Encode] | None] = {}

    def own_tensors(self) -> Iterator[Tensor]:
        """Where captured work finds its patches."""
        yield from (known[0] for known in self._known.values() if known is not None)

    @torch.no_grad()
    def encode(self, given: Tensor | list[Tensor], grid: tuple[int, int]) -> VisionTokens:
        """Vision tokens of S slots, good until the next call; see `model.encode`."""
        patches = taken(given)
        key = (patches.shape, patches.dtype, grid)
        if key not in self._known:
            keep_latest(self._known, key, None)
            return self._model.encode(patches, grid)
        known = self._known[key]
        if known is None:
            place = patches.clone()
            known = (place, self._graphs.capture(partial(self._model.encode, place, grid)))
        keep_latest(self._known, key, known)
        place, work = known
        place.copy_(patches)
        return work()
