"""An answer's tokens on captured work: everything a token takes, from its id to the logits after it, is one graph.

While an answer is decoded nothing is written to the fast weights (whoever pushes sees to that), so a TTT layer is its
rounded weights and its last keys and values. Both lie at places of the engine's own, with room behind the windows;
anchors are read through tables of pages (`AnswerPages`). All that changes from token to token, the id, the position,
the numbers of keys, lies on the device, so one captured list of kernels serves every token of every answer.
Without graphs (on a CPU, in tests) the same functions are simply called.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from spatial_ttt.model.anchor import AnchorCache
from spatial_ttt.model.answer_pages import AnswerPages, shape_of
from spatial_ttt.model.bounded_cache import BoundedCache
from spatial_ttt.model.decoder import AnchorLayer, HybridDecoder, TTTLayer
from spatial_ttt.model.fast_weights import BriefState, FastWeights
from spatial_ttt.model.kernels import attention
from spatial_ttt.model.kernels.attention import Past
from spatial_ttt.model.kernels.captured import Graphs
from spatial_ttt.model.kv_cache import KVCache, Segment
from spatial_ttt.model.layout import text
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.state import DecoderState, Tokens, Trailing, TTTState
from spatial_ttt.model.steady_anchor import through_pages
from spatial_ttt.model.steady_graphs import Buffers

ROOM = 256
"""Tokens that a window has room for before it is moved back."""

LARGEST_WINDOW = 8192
"""Wider windows are those of models without fast weights: no copy of them is made for an answer."""

Kind = tuple[Any, ...]


class Said(NamedTuple):
    """What a token leads to; good until the next token."""

    hidden: Tensor  # [D] after the final norm
    logits: Tensor  # [V] float32


def kind_of(
    model: SpatialTTTForConditionalGeneration, state: DecoderState, count: int
) -> Kind | None:
    """What captured work depends on besides numbers, for `count` tokens after a state; None: it is not steady."""
    like = model.decoder.norm.weight
    has_kernels = attention.applies(like)
    if like.device.type == "cuda" and not has_kernels:
        return None
    kinds: list[Any] = []
    lengths = set()
    for layer, past in zip(model.decoder.layers, state.layers, strict=True):
        if isinstance(layer, TTTLayer):
            if not isinstance(past, TTTState) or past.window is None or past.held or past.context:
                return None
            parts = _parts(past.window)
            if parts[0][0].shape[0] != 1:
                return None
            size = layer.self_attn.config.window_size
            if size > LARGEST_WINDOW:
                return None
            lengths.add(min(size, sum(keys.shape[2] for keys, _ in parts)))
            kinds.append("ttt")
        elif isinstance(past, KVCache | BoundedCache):
            kinds.append(shape_of(past, count) if has_kernels else None)
        else:
            return None
    return None if len(lengths) > 1 else (has_kernels, *kinds)


class SteadyAnswer:
    """A model's engine for answers of one kind, one at a time."""

    def __init__(self, model: SpatialTTTForConditionalGeneration, kind: Kind) -> None:
        decoder = model.decoder
        device = decoder.norm.weight.device
        self.graphs = Graphs(device)
        # A row for the windows, one for each layer; rows of layers without a table mean nothing.
        numbers = torch.zeros(1 + len(decoder.layers), 2, dtype=torch.long, device=device)
        self.layers = [
            _layer(layer, shape, numbers[0], numbers[1 + number])
            for number, (layer, shape) in enumerate(zip(decoder.layers, kind[1:], strict=True))
        ]
        self._windows = [layer for layer in self.layers if isinstance(layer, _AnswerTTT)]
        self._pages = [layer.pages for layer in self.layers if isinstance(layer, _PagedAnchor)]
        self._way = _Way(decoder, model.lm_head, numbers)
        self._works = self._capture()
        self._length = 0  # tokens in the windows

    @torch.no_grad()
    def load(self, state: DecoderState) -> None:
        """Take a state of this engine's kind over; the given one stays as it is."""
        self._way.position.fill_(state.position)
        for layer, past in zip(self.layers, state.layers, strict=True):
            layer.load(past)
        self._set_length(self._windows[0].length if self._windows else 0)

    @torch.no_grad()
    def push(self, token: int) -> Said:
        """Push a token that writes nothing; raises whatever a device raises, then only `load` helps."""
        if self._windows and self._length == self._windows[0].capacity:
            for window in self._windows:
                window.move_back()
            self._set_length(self._windows[0].length)
        for pages in self._pages:
            pages.make_room()
        self._way.ids.fill_(token)
        found: Any = None
        for work in self._works:
            found = work()
        self._length += 1
        for pages in self._pages:
            pages.advance()
        return cast(Said, found)

    def clear(self) -> None:
        """Let go of what belongs to the answer that is over."""
        for layer in self.layers:
            layer.clear()

    def _set_length(self, length: int) -> None:
        self._length = length
        self._way.numbers[0, 1].fill_(length)

    def _capture(self) -> list[Any]:
        """Neighbouring layers as one captured step; what cannot be captured stands between them."""
        groups: list[list[Any]] = [[]]
        apart: list[bool] = [False]
        for layer in self.layers:
            is_apart = self.graphs.is_on and not layer.is_fixed
            if is_apart or apart[-1]:
                groups.append([])
                apart.append(is_apart)
            groups[-1].append(layer)
        works = []
        for number, (group, is_apart) in enumerate(zip(groups, apart, strict=True)):
            ends = (number == 0, number == len(groups) - 1)
            work = partial(self._way.go, tuple(group), *ends)
            works.append(work if is_apart else self.graphs.capture(work))
        return works


@dataclass
class _Way:
    """A token's way through the model, at fixed places."""

    decoder: HybridDecoder
    head: nn.Linear
    numbers: Tensor  # int64 [rows, 2]: of each row keys that no longer count, keys that count
    buffers: Buffers = field(default_factory=Buffers)

    def __post_init__(self) -> None:
        like = self.numbers
        self.ids, self.position = like.new_zeros(1, 1), like.new_zeros(1)
        self.between: Tokens | None = None  # what one step leaves to the next

    def go(self, layers: tuple[_Layer, ...], is_first: bool, is_last: bool) -> Any:
        """Through some of the layers; the last of all makes the logits and moves the numbers on."""
        tokens = self._begin() if is_first else cast(Tokens, self.between)
        for layer in layers:
            tokens = layer.push(tokens)
        if not is_last:
            self.between = self.buffers.put_tokens(tokens)
            return None
        hidden = self.decoder.norm(tokens.hidden)[0, -1]
        said = Said(hidden, self.head(hidden).float())
        self.numbers[:, 1].add_(1)
        self.position.add_(1)
        return said

    def _begin(self) -> Tokens:
        hidden = self.decoder.embed_tokens(self.ids)
        rope = self.decoder.rotary_emb(self.position.expand(3, 1, 1), hidden.dtype)
        return Tokens(hidden, rope, None, (text(1),))


class _Layer(Protocol):
    """A layer that has what an answer reads."""

    is_fixed: bool
    """All it reads lies at fixed places: its step may be captured."""

    def load(self, state: Any) -> None:
        """Take the layer's state over."""

    def push(self, tokens: Tokens) -> Tokens:
        """One token's step."""

    def clear(self) -> None:
        """Let go of other people's memory."""


def _layer(layer: Any, shape: Any, of_windows: Tensor, of_pages: Tensor) -> Any:
    if isinstance(layer, TTTLayer):
        return _AnswerTTT(layer, of_windows)
    if shape is None:
        return _PlainAnchor(layer)
    return _PagedAnchor(layer, shape, of_pages)


class _AnswerTTT:
    """A TTT layer's rounded weights, and its window with room behind it."""

    is_fixed = True

    def __init__(self, layer: TTTLayer, numbers: Tensor) -> None:
        attn = layer.self_attn
        like, heads, dim = layer.input_layernorm.weight, attn.config.num_fast_heads, attn.fast_dim
        self.layer = layer
        self.size = attn.config.window_size
        self.capacity, self.length = self.size + ROOM, 0
        # Side by side, as `kernels.commit` reads them.
        low = like.new_empty(1, heads, 3, dim, dim)
        self.weights = FastWeights(*low.unbind(2))
        shape = (1, attn.num_kv_heads, self.capacity, attn.head_dim)
        self.past = Past(like.new_empty(shape), like.new_empty(shape), numbers)
        fast = BriefState(self.weights, None, None, None, None, 0, 1)  # nothing will be written
        self.state = TTTState(fast, cast(Any, self.past), None, None)

    def load(self, state: Any) -> None:
        """Copy weights and window here."""
        past = cast(TTTState, state)
        for to, weight in zip(self.weights, past.fast.weights, strict=True):
            to.copy_(weight)
        parts = _parts(cast(Any, past.window))
        at = self.length = min(self.size, sum(keys.shape[2] for keys, _ in parts))
        for segment in reversed(parts):  # the latest count
            count = min(at, segment[0].shape[2])
            for to, x in zip(self.past[:2], segment, strict=True):
                to[:, :, at - count : at] = x[:, :, x.shape[2] - count :]
            at -= count

    def move_back(self) -> None:
        """The last tokens of a full buffer to its beginning."""
        self.length = self.size
        for x in self.past[:2]:
            kept = x[:, :, -self.size :].clone()  # where it goes may overlap where it is
            x[:, :, : self.size] = kept

    def push(self, tokens: Tokens) -> Tokens:
        """The layer's own step."""
        return cast(Tokens, self.layer(tokens, self.state)[0])

    def clear(self) -> None:
        """All of it is ours."""


class _PagedAnchor:
    """An anchor that is read where its pages lie."""

    is_fixed = True

    def __init__(self, layer: AnchorLayer, shape: tuple[int, int], numbers: Tensor) -> None:
        attn = layer.self_attn
        like = layer.input_layernorm.weight.new_empty(1, attn.num_kv_heads, 1, attn.head_dim)
        self.layer = layer
        self.pages = AnswerPages(like, shape, numbers)

    def load(self, state: Any) -> None:
        """Point at its pages."""
        self.pages.load(state)

    def push(self, tokens: Tokens) -> Tokens:
        """The layer's step through the table."""
        return through_pages(self.layer, tokens, self.pages.past)

    def clear(self) -> None:
        """Other people's pages."""
        self.pages.clear()


class _PlainAnchor:
    """An anchor that no table describes (8 bits, no kernel): its cache goes from token to token."""

    is_fixed = False

    def __init__(self, layer: AnchorLayer) -> None:
        self.layer = layer
        self.cache: AnchorCache | None = None

    def load(self, state: Any) -> None:
        """Caches share their pages and copy their tails when written."""
        self.cache = state

    def push(self, tokens: Tokens) -> Tokens:
        """The layer's own step."""
        ready, self.cache = self.layer(tokens, self.cache)
        return cast(Tokens, ready)

    def clear(self) -> None:
        """The whole cache."""
        self.cache = None


def _parts(window: Any) -> list[Segment]:
    """What a continuation's window is made of, the oldest first."""
    if not isinstance(window, Trailing):
        return [window]
    return [window.past] if window.own is None else [window.past, window.own]
