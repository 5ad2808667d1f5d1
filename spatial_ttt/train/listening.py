"""Hidden states from inside the decoder, for read-outs that must not wait for the last layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from spatial_ttt.model.decoder import AnchorLayer
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration


@contextmanager
def listening(
    model: SpatialTTTForConditionalGeneration, layers: Sequence[int]
) -> Iterator[list[Tensor]]:
    """Collect what these layers put out, [B, L, D] each, in the order in which they run."""
    heard: list[Tensor] = []

    def hear(_module: Any, _inputs: Any, output: Any) -> None:
        heard.append(output[0].hidden)

    handles = [model.decoder.layers[n].register_forward_hook(hear) for n in layers]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def before_anchors(model: SpatialTTTForConditionalGeneration) -> list[int]:
    """Layers whose output an anchor reads: what it can find is what stands there."""
    layers = model.decoder.layers
    return [n - 1 for n, layer in enumerate(layers) if n and isinstance(layer, AnchorLayer)]


def middle(model: SpatialTTTForConditionalGeneration) -> list[int]:
    """Layers by which a question has looked up what it names, so that the rest can combine it."""
    half = len(model.decoder.layers) // 2
    return sorted({max(half - 1, 0), half}) if half < 3 else [half, half + 1]
