"""Random streams of tokens, ways to cut them, and how far two runs differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from spatial_ttt.model.kv_cache import KVCache
from spatial_ttt.model.layout import END, Layout, RunKind, cut, join_all, num_tokens, slot, text
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.state import DecoderState
from spatial_ttt.testing.small import small_model


class Stream(NamedTuple):
    """Embedded tokens of B rows and where the slots lie in them."""

    layout: Layout
    hidden: Tensor  # [B, L, D]
    deepstack: Tensor | None  # [K, B, L, D], zero at text; None: no slot at all

    @property
    def length(self) -> int:
        return self.hidden.shape[1]

    def to(self, device: str) -> Stream:
        deep = None if self.deepstack is None else self.deepstack.to(device)
        return Stream(self.layout, self.hidden.to(device), deep)

    def piece(self, start: int, stop: int) -> Stream:
        layout = cut(self.layout, start, stop)
        has_slot = any(run.kind == RunKind.SLOT for run in layout)
        deep = self.deepstack[:, :, start:stop] if self.deepstack is not None and has_slot else None
        return Stream(layout, self.hidden[:, start:stop], deep)


@lru_cache(maxsize=64)
def model_of(dtype: torch.dtype = torch.float64, **ttt: Any) -> SpatialTTTForConditionalGeneration:
    """A small model with open gates; one per setting."""
    return small_model(**({"chunk_size": 7, "window_size": 9} | ttt)).to(dtype)


def random_stream(
    model: SpatialTTTForConditionalGeneration, layout: Layout, *, batch: int = 1, seed: int = 0
) -> Stream:
    """Random embeddings and, at slots, random features of one DeepStack tap more than a layer uses up."""
    generator = torch.Generator().manual_seed(seed)
    weight = model.get_input_embeddings().weight
    shape = (batch, num_tokens(layout), weight.shape[1])
    hidden = torch.randn(shape, generator=generator, dtype=torch.float64).to(weight.dtype)
    is_slot = torch.cat(
        [torch.full((run.length,), run.kind == RunKind.SLOT) for run in layout]
        or [torch.zeros(0, dtype=torch.bool)]
    )
    if not is_slot.any():
        return Stream(layout, hidden, None)
    deep = torch.randn((2, *shape), generator=generator, dtype=torch.float64).to(weight.dtype)
    return Stream(layout, hidden, deep * is_slot[:, None])


def push(
    model: SpatialTTTForConditionalGeneration,
    stream: Stream,
    cuts: Iterable[int] = (),
    state: DecoderState | None = None,
) -> tuple[Tensor, DecoderState]:
    """Hidden states of all determined tokens, and the final state, when cut at these tokens."""
    state = state or model.decoder.start()
    borders = sorted({0, *cuts, stream.length})
    outputs = [stream.hidden[:, :0]]
    for start, stop in pairwise(borders):
        piece = stream.piece(start, stop)
        out, state = push_piece(model, piece, state)
        outputs.append(out)
    return torch.cat(outputs, dim=1), state


def push_piece(
    model: SpatialTTTForConditionalGeneration, piece: Stream, state: DecoderState
) -> tuple[Tensor, DecoderState]:
    """One piece."""
    tokens, position = model.decoder.tokens(
        piece.hidden, piece.layout, state.position, piece.deepstack
    )
    done, state = model.decoder(tokens, state._replace(position=position))
    return done.hidden, state


def end_video(
    model: SpatialTTTForConditionalGeneration, state: DecoderState, like: Stream
) -> tuple[Tensor, DecoderState]:
    """Declare the open video over, without a token."""
    return push_piece(model, Stream((END,), like.hidden[:, :0], None), state)


def relative(actual: Tensor, expected: Tensor) -> float:
    """Largest absolute difference over the largest expected magnitude; infinite for another shape."""
    if actual.shape != expected.shape or not torch.isfinite(actual).all():
        return float("inf")
    if not expected.numel():
        return 0.0
    actual, expected = actual.detach(), expected.detach()
    return float((actual - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


def difference(actual: Any, expected: Any) -> float:
    """The worst relative error between two states of equal structure; infinite for another structure."""
    if isinstance(actual, KVCache) and isinstance(expected, KVCache):
        return difference(actual.past, expected.past)
    if actual is None and isinstance(expected, Tensor):
        return 0.0 if not expected.any() else float("inf")  # no DeepStack features: zero ones
    if expected is None and isinstance(actual, Tensor):
        return 0.0 if not actual.any() else float("inf")
    if isinstance(actual, Tensor) and isinstance(expected, Tensor):
        return relative(actual, expected)
    if isinstance(actual, tuple) and isinstance(expected, tuple):
        if type(actual) is not type(expected) or len(actual) != len(expected):
            return float("inf")
        return max((difference(a, e) for a, e in zip(actual, expected, strict=True)), default=0.0)
    if hasattr(actual, "pixels") and hasattr(expected, "pixels"):
        same = actual.time == expected.time and bool((actual.pixels == expected.pixels).all())
        return 0.0 if same else float("inf")
    return 0.0 if actual == expected else float("inf")


def same_bits(actual: Any, expected: Any) -> bool:
    """Two states are equal to the last bit."""
    return difference(actual, expected) == 0.0


def video(grid: tuple[int, int], slots: int, gap: int = 2, *, ends: bool = True) -> Layout:
    """`slots` slots with `gap` text tokens between them."""
    runs: list[Layout] = []
    for number in range(slots):
        runs += [(text(gap),)] if number and gap else []
        runs.append((slot(*grid),))
    return join_all([*runs, (END,)] if ends else runs)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """Text, images and videos of unequal grids in any order; the last video may stay open."""
    parts: list[Layout] = []
    for _ in range(draw(st.integers(1, 4))):
        if draw(st.booleans()):
            parts.append((text(draw(st.integers(1, 6))),))
        else:
            grid = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
            parts.append(video(grid, draw(st.integers(1, 4)), draw(st.integers(0, 3))))
    whole = join_all(parts)
    if whole[-1] == END and draw(st.booleans()):
        whole = whole[:-1]
    return whole


@st.composite
def cuttings(draw: st.DrawFn, length: int) -> Sequence[int]:
    """Where to cut `length` tokens: anywhere, or everywhere."""
    if draw(st.integers(0, 4)) == 0:
        return range(1, length)
    return sorted(draw(st.sets(st.integers(1, max(1, length - 1)), max_size=8)))
