"""Where the memory goes: weights, what a stream keeps, frames, and the rest."""

from __future__ import annotations

from typing import NamedTuple

from spatial_ttt.bench.clock import GIB
from spatial_ttt.model.bounded_cache import BoundedCache
from spatial_ttt.model.kv_cache import KVCache
from spatial_ttt.model.state import DecoderState, storage_bytes, tensors


class StateBytes(NamedTuple):
    """Bytes reserved for one stream's state."""

    ttt: int
    """Fast weights, windows, held slots."""
    anchors: int
    """Keys and values, spare room included."""

    @property
    def total(self) -> int:
        """Both."""
        return self.ttt + self.anchors


NOTHING = StateBytes(0, 0)


def state_bytes(state: DecoderState) -> StateBytes:
    """Bytes reserved behind a state's tensors."""
    caches = [layer for layer in state.layers if isinstance(layer, KVCache | BoundedCache)]
    others = [layer for layer in state.layers if not isinstance(layer, KVCache | BoundedCache)]
    return StateBytes(storage_bytes(tensors(tuple(others))), storage_bytes(tensors(tuple(caches))))


class Held(NamedTuple):
    """Bytes that are known at a measure's peak."""

    weights: int
    frames: int
    state: StateBytes = NOTHING


def memory_by_part(held: Held, peak: int | None) -> dict[str, float | None]:
    """GiB by part; `activations` is what is left of the peak, None where no peak is known."""
    parts = {
        "weights": held.weights,
        "fast_weights_windows_held": held.state.ttt,
        "anchors": held.state.anchors,
        "frames": held.frames,
    }
    rest = None if peak is None else (peak - sum(parts.values())) / GIB
    return {name: value / GIB for name, value in parts.items()} | {"activations": rest}
