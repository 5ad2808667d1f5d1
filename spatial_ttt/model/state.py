"""What the decoder carries from one piece of a stream to the next.

States are immutable: a step returns a new one and shares what did not change, so a fork is the
same object. The one exception, the anchors' growing buffers, copies on write (see `KVCache`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from spatial_ttt.model.bounded_cache import BoundedCache
from spatial_ttt.model.fast_weights import BriefState, FastState, FastWeights
from spatial_ttt.model.kernels import commit
from spatial_ttt.model.kv_cache import KVCache, branch
from spatial_ttt.model.layout import AnyLayout, cut


class Tokens(NamedTuple):
    """A piece of a stream between two decoder layers: B rows of the same layout, or whole samples of different ones."""

    hidden: Tensor  # [B, L, D]
    rope: Tensor  # [B, L, head_dim] cos and sin of each token's position
    deepstack: Tensor | None  # [K, B, L, D] vision features to add after the next K layers
    layout: AnyLayout
    room: int = 0
    """Tokens of free memory before the hidden states, for those that the next layer held back."""

    @property
    def length(self) -> int:
        """L."""
        return self.hidden.shape[1]


class Raw(NamedTuple):
    """What a TTT layer's linear layers make of each token, as they leave it: enough to hold a token back."""

    qkv: Tensor  # [B, L, (H + 2 Hkv) * Dh] queries, keys, values side by side
    rates: Tensor  # [B, L, (3..5) * fast heads] learning rates, momentum (if used), gate (if used)


class Projected(NamedTuple):
    """A TTT layer's view of its tokens: everything it needs, per token."""

    query: Tensor  # [B, H, L, Dh] normed and rotated
    key: Tensor  # [B, Hkv, L, Dh] normed and rotated
    value: Tensor  # [B, Hkv, L, Dh]
    fast: Tensor  # [B, L, 3 * D] query, key, value of the TTT branch before the convolution
    lr: Tensor  # [B, L, 3 * fast heads]
    momentum: Tensor  # [B, L, fast heads]
    gate: Tensor  # [B, L, fast heads]
    room: int = 0  # tokens of free memory before key and value, for the window's
    behind: int = 0  # tokens, all finite, that stand in memory behind query, key and value

    def first(self, count: int, fast: Tensor) -> Projected:
        """The first `count` tokens, their branch convolved already."""
        q, k, v = (t[:, :, :count] for t in self[:3])
        lr, momentum, gate = (t[:, :count] for t in self[4:7])
        behind = self.behind + self.query.shape[2] - count
        return Projected(q, k, v, fast, lr, momentum, gate, self.room, behind)


class Held(NamedTuple):
    """Tokens that wait for the next slot, and what is known of them."""

    tokens: Tokens
    raw: Raw


class Context(NamedTuple):
    """The last slots of the open video, as the convolution read them."""

    slots: Tensor  # [B, 1 (centred) or 2 (causal), h, w, 3 * D]
    grid: tuple[int, int]


Window = tuple[Tensor, Tensor]
"""Keys, values [B, Hkv, <= W, Dh] after rotation."""


class Trailing(NamedTuple):
    """The window of a continuation: the stream's own, which it shares, and what came after it."""

    past: Window
    own: Window | None

    def joined(self, k: Tensor, v: Tensor, size: int) -> tuple[Window, Window | Trailing]:
        """With new keys and values: all that a query may see, and the last `size` to carry on."""
        new = (k, v) if self.own is None else _joined(self.own, (k, v))
        seen = _joined(self.past, new)
        if new[0].shape[2] >= size:
            return seen, (new[0][:, :, -size:].clone(), new[1][:, :, -size:].clone())
        return seen, Trailing(self.past, new)


def _joined(first: Window, second: Window) -> Window:
    return torch.cat((first[0], second[0]), dim=2), torch.cat((first[1], second[1]), dim=2)


class TTTState(NamedTuple):
    """A TTT layer between two pieces."""

    fast: FastState | BriefState
    window: Window | Trailing | None
    held: Held | None
    context: Context | None


LayerState = TTTState | KVCache | BoundedCache | None
"""None stands for a layer that has seen nothing."""


class DecoderState(NamedTuple):
    """The whole decoder between two pieces."""

    layers: Sequence[LayerState]
    position: int  # of the next text token
    num_tokens: int  # seen so far

    def given_away(self) -> DecoderState:
        """The same state for a decoder that may let go of each layer's part as soon as it has read it.

        Only for a caller who drops this state: then a piece never needs the memory of two states at once.
        """
        return self._replace(layers=list(self.layers))

    @property
    def num_bytes(self) -> int:
        """Bytes held by all layers (anchors: in use, not reserved)."""
        return sum(layer_bytes(layer) for layer in self.layers)


def brief(state: DecoderState, count: int) -> DecoderState:
    """A continuation of at most `count` more tokens off a state, which it shares and leaves alone.

    Nothing is copied, and nothing is kept that so few tokens would never read: a question and its answer
    cost what they add. The held tokens that the end of a video releases are not counted in `count`.
    """
    layers: list[LayerState] = []
    for layer in state.layers:
        if isinstance(layer, TTTState):
            count += layer.held.tokens.length if layer.held else 0
            if isinstance(layer.fast, FastState):
                layer = layer._replace(fast=BriefState(*layer.fast, count))
            if layer.window is not None and not isinstance(layer.window, Trailing):
                layer = layer._replace(window=Trailing(layer.window, None))
        layers.append(branch(layer) if isinstance(layer, KVCache) else layer)
    return state._replace(layers=tuple(layers))


def layer_bytes(state: LayerState) -> int:
    """Bytes of one layer's state."""
    if isinstance(state, KVCache):
        return state.num_bytes
    return sum(t.numel() * t.element_size() for t in tensors(state))


def tensors(state: Any) -> Iterator[Tensor]:
    """Every tensor inside a nest of tuples."""
    found: list[Tensor] = []
    _gather(state, found)
    return iter(found)


def _gather(state: Any, found: list[Tensor]) -> None:
    """Add a nest's tensors; not as a generator, which takes several times as long for each of hundreds."""
    if isinstance(state, Tensor):
        found.append(state)
    elif isinstance(state, tuple):
        for item in state:
            _gather(item, found)


def cat_tokens(first: Tokens, second: Tokens, layout: AnyLayout) -> Tokens:
    """Two neighbouring pieces as one."""
    deepstack = None
    if first.deepstack is not None or second.deepstack is not None:
        deepstack = torch.cat((_deepstack(first, second), _deepstack(second, first)), dim=2)
    rope = torch.cat((first.rope, second.rope), dim=1)
    return Tokens(_cat_hidden(first, second), rope, deepstack, layout)


def _cat_hidden(first: Tokens, second: Tokens) -> Tensor:
    """Hidden states of both; where there is room before the second's they stay where they are."""
    x, count = second.hidden, first.length
    if second.room < count:
        return torch.cat((first.hidden, x), dim=1)
    shape = (x.shape[0], count + x.shape[1], x.shape[2])
    whole = x.as_strided(shape, x.stride(), x.storage_offset() - count * x.stride(1))
    whole[:, :count] = first.hidden
    return whole


def _deepstack(tokens: Tokens, other: Tokens) -> Tensor:
    if tokens.deepstack is not None:
        return tokens.deepstack
    assert other.deepstack is not None
    return tokens.hidden.new_zeros(other.deepstack.shape[0], *tokens.hidden.shape)


def slice_tokens(tokens: Tokens, start: int, stop: int, layout: AnyLayout) -> Tokens:
    """Tokens start..stop-1, whose runs are `layout`."""
    deepstack = None if tokens.deepstack is None else tokens.deepstack[:, :, start:stop]
    return Tokens(tokens.hidden[:, start:stop], tokens.rope[:, start:stop], deepstack, layout)


def last_tokens(tokens: Tokens, count: int) -> Tokens:
    """The last `count` of them, or all where there are fewer; few keep no others' memory."""
    length = tokens.length
    start = max(0, length - count)
    found = slice_tokens(tokens, start, length, cut(tokens.layout, start, length))
    return cast(Tokens, own(found)) if start else found


def storage_bytes(parts: Iterable[Tensor]) -> int:
    """Bytes reserved behind tensors; what shares memory counts once."""
    whole = (tensor.untyped_storage() for tensor in parts)
    return sum({storage.data_ptr(): storage.nbytes() for storage in whole}.values())


def storages(state: DecoderState) -> set[int]:
    """Where the memory of the TTT layers' tensors begins."""
    layers = tuple(layer for layer in state.layers if isinstance(layer, TTTState))
    return {tensor.untyped_storage().data_ptr() for tensor in tensors(layers)}


def moved_out(state: Any, places: set[int]) -> Any:
    """The same nest of tuples with copies of those tensors that lie in memory which begins at `places`."""
    if isinstance(state, Tensor):
        return state.clone() if state.untyped_storage().data_ptr() in places else state
    if isinstance(state, tuple):
        items = [moved_out(item, places) for item in state]
        return type(state)(*items) if hasattr(state, "_fields") else tuple(items)
    return state


def own(state: Any) -> Any:
    """The same nest of tuples with every tensor copied, so that no larger buffer is kept alive.

    The three kinds of square fast weights lie side by side afterwards, as `kernels.commit` wants them.
    """
    places: list[Tensor] = []
    values: list[Tensor] = []
    copied = roomy(state, places, values)
    for to, value in zip(places, values, strict=True):
        to.copy_(value)
    return copied


def roomy(state: Any, places: list[Tensor], values: list[Tensor]) -> Any:
    """The same nest with fresh memory for every tensor; what is to be copied where is added to the lists."""
    if isinstance(state, Tensor):
        places.append(torch.empty_like(state, memory_format=torch.contiguous_format))
        values.append(state)
        return places[-1]
    if isinstance(state, FastWeights) and state.gate.shape == state.down.shape:
        whole = commit.joined(state)  # as one: parts that lie side by side are not dense
        places.append(torch.empty_like(whole, memory_format=torch.contiguous_format))
        values.append(whole)
        return FastWeights(*places[-1].unbind(2))
    if isinstance(state, tuple):
        items = [roomy(item, places, values) for item in state]
        return type(state)(*items) if hasattr(state, "_fields") else tuple(items)
    return state
