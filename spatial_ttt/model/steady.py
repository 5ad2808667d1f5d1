"""A decoder in its steady state: the same layers, with fixed shapes, replayed as CUDA graphs.

A stream soon comes in pieces of one layout, and every layer's state has its final shape. From then on a
piece is the same list of kernels with other numbers, so each layer's list is captured once and replayed: the
host does next to nothing. What is not steady (the first pieces, a longer time stamp, the end of a video) runs
layer by layer as everywhere else. Without graphs (on a CPU, in tests) the captured functions are simply called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from spatial_ttt.errors import SessionError
from spatial_ttt.model.bounded_cache import BoundedCache
from spatial_ttt.model.decoder import AnchorLayer, HybridDecoder, TTTLayer
from spatial_ttt.model.fast_weights import BorderState, FastState
from spatial_ttt.model.kv_cache import append
from spatial_ttt.model.state import DecoderState, Tokens, TTTState, own, tensors
from spatial_ttt.model.ttt import AnchorCache

MAX_GRAPHS = 4  # kinds of pieces per layer
Result = TypeVar("Result")


class Buffers:
    """Tensors of fixed address that layers share, by name and shape: each is free again when the next layer runs."""

    def __init__(self) -> None:
        self.known: dict[Any, Tensor] = {}

    def like(self, name: str, x: Tensor) -> Tensor:
        """The buffer of this name for tensors like x."""
        key = (name, x.shape, x.dtype)
        if key not in self.known:
            self.known[key] = torch.empty_like(x, memory_format=torch.contiguous_format)
        return self.known[key]

    def put(self, name: str, x: Tensor) -> Tensor:
        """Copy x to its buffer."""
        buffer = self.like(name, x)
        return buffer if buffer is x else buffer.copy_(x)

    def put_tokens(self, name: str, tokens: Tokens) -> Tokens:
        """Copy the tensors of tokens to their buffers."""
        deepstack = tokens.deepstack
        return tokens._replace(
            hidden=self.put(f"{name} hidden", tokens.hidden),
            rope=self.put(f"{name} rope", tokens.rope),
            deepstack=None if deepstack is None else self.put(f"{name} deepstack", deepstack),
        )


class Graphs:
    """Captures work as CUDA graphs that share one memory pool; where there is no CUDA, work is simply done."""

    def __init__(self, device: torch.device) -> None:
        self.is_on = device.type == "cuda"
        self.pool = torch.cuda.graph_pool_handle() if self.is_on else None

    def capture(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """The same work, replayed; it may read and write tensors of fixed address only.

        The first call does it as it is, so that nothing has to be compiled while capturing.
        """
        if not self.is_on:
            return work
        graph: torch.cuda.CUDAGraph | None = None
        captured: list[Result] = []

        def run() -> Result:
            nonlocal graph
            if graph is not None:
                graph.replay()
                return captured[0]
            result = work()
            fresh = torch.cuda.CUDAGraph()
            with torch.cuda.graph(fresh, pool=self.pool):
                captured.append(work())
            graph = fresh
            return result

        return run


@dataclass
class SteadyTTT:
    """A TTT layer with its state at a fixed place.

    `home` is that place: the tensors that captured work reads and writes. A state of other shapes (a video that
    just began, another stream) lies elsewhere, and comes home as soon as its shapes are home's again: the
    captured work stays good. Work on pieces of one kind is done plainly once and captured the second time.
    """

    layer: TTTLayer
    buffers: Buffers
    graphs: Graphs
    state: TTTState | None = None
    home: TTTState | None = None
    border: Tensor | None = None
    shapes: Any = None  # of `state`
    known: dict[Any, Callable[[], Tokens] | None] = field(default_factory=dict)

    def load(self, state: TTTState | None) -> None:
        """Take a state over; it is copied home, or left as it is until it is settled there."""
        self._replace(None if state is None else self._settle(state))

    def push(self, tokens: Tokens, *, needs_output: bool = True) -> Tokens:
        """The layer's step; `needs_output` is for anchors."""
        config = self.layer.self_attn.config
        steady = self._signature(tokens)
        if self.state is None or steady is None:
            return self._plainly(tokens)
        room = config.chunk_size - self.state.fast.num_tokens
        crosses = tokens.length > room
        key = (steady, crosses)
        if key not in self.known:
            ready = self._plainly(tokens)
            if self._signature(tokens) == steady:
                self._make_home()
                _keep(self.known, key, None)
            return ready
        count, tokens = tokens.length, self.buffers.put_tokens("in", tokens)
        if self.border is None:
            self.border = torch.zeros((), dtype=torch.long, device=tokens.hidden.device)
        self.border.fill_(room)
        work = self.known[key] or self._capture(tokens, crosses)
        _keep(self.known, key, work)
        ready = work()
        left = count - room if crosses else self.state.fast.num_tokens + count
        self.state = self.state._replace(fast=self.state.fast._replace(num_tokens=left))
        return ready

    def _plainly(self, tokens: Tokens) -> Tokens:
        ready, new = self.layer(tokens, self.state)
        self._replace(self._settle(cast(TTTState, new)))
        return cast(Tokens, ready)

    def _replace(self, state: TTTState | None) -> None:
        """Another state; its shapes are looked at once, since captured steps keep them."""
        self.state = state
        self.shapes = None if state is None else _shapes(state)

    def _signature(self, tokens: Tokens) -> Any:
        """What a captured step depends on besides numbers; None: this step is not steady."""
        if self.state is None:
            return None
        config, fast, count = self.layer.self_attn.config, self.state.fast, tokens.length
        if not 0 < count <= config.chunk_size or self.state.window is None:
            return None
        is_open = fast.gradient is not None and fast.beta_sum is not None
        has_written = fast.momentum is not None or not config.use_momentum
        has_written &= fast.master is not None or config.norm_placement != "pre"
        if not (is_open and has_written):
            return None
        return (tokens.layout, tokens.hidden.shape, _count(tokens.deepstack), self.shapes)

    def _settle(self, state: TTTState) -> TTTState:
        """The same state, each part of it at home whose tensors have home's shapes."""
        if self.home is None:
            return state
        parts: list[Any] = []
        for new, old in zip(state, self.home, strict=True):
            if _shapes(new) == _shapes(old):
                places = list(tensors(old))
                _copy(places, list(tensors(new)))
                new = _with_tensors(new, iter(places))
            parts.append(new)
        return TTTState(*parts)

    def _make_home(self) -> None:
        """Settle where the state is now, with tensors that nobody else holds; other captured work is over."""
        if self.home is None or _shapes(self.home) != self.shapes:
            self.known.clear()
            self.home = self.state = own(self.state)

    def _capture(self, tokens: Tokens, crosses: bool) -> Callable[[], Tokens]:
        state, border = self.state, self.border
        assert state is not None and border is not None
        places = list(tensors(state))
        fast: Any = state.fast
        if crosses:
            assert fast.gradient is not None and fast.beta_sum is not None
            fast = BorderState(
                fast.weights, fast.master, fast.momentum, fast.gradient, fast.beta_sum, border
            )

        def work() -> Tokens:
            ready, new = self.layer(tokens, state._replace(fast=fast))
            sums = new.fast
            last = FastState(
                sums.weights, sums.master, sums.momentum, sums.gradient, sums.beta_sum, 0
            )
            _copy(places, list(tensors(new._replace(fast=last))))
            return self.buffers.put_tokens("out", ready)

        return self.graphs.capture(work)


@dataclass
class SteadyAnchor:
    """An anchor: graphs around its attention, whose length grows."""

    layer: AnchorLayer
    buffers: Buffers
    graphs: Graphs
    cache: AnchorCache | None = None
    known: dict[Any, tuple[Callable[[], Any], Callable[[], Any]] | None] = field(
        default_factory=dict
    )

    def load(self, state: AnchorCache | None) -> None:
        """Take a cache over; caches share their pages and copy their tails when written."""
        self.cache = state

    def push(self, tokens: Tokens, *, needs_output: bool = True) -> Tokens:
        """The layer's step; without output only its keys and values are kept."""
        before, attended, after = self._steps(tokens)
        query, keys, values = before()
        keys, values = keys.clone(), values.clone()  # the cache may keep them as they are
        if not needs_output and not isinstance(self.cache, BoundedCache):
            self.cache = append(self.cache, keys, values)
            return tokens
        out, self.cache = self.layer.self_attn.remember(query, keys, values, self.cache)
        attended.copy_(out)
        return cast(Tokens, after())

    def _steps(self, tokens: Tokens) -> tuple[Callable[[], Any], Tensor, Callable[[], Any]]:
        """What comes before attention, where its result goes, and what comes after."""
        tokens = self.buffers.put_tokens("in", tokens)
        shape = (*tokens.hidden.shape[:2], self.layer.self_attn.o_proj.in_features)
        attended = self.buffers.like("attended", tokens.hidden.new_empty(shape))
        before, after = partial(self._before, tokens), partial(self._after, tokens, attended)
        key = (tokens.layout, tokens.hidden.shape, _count(tokens.deepstack))
        if key not in self.known or not tokens.length:
            _keep(self.known, key, None)
            return before, attended, after
        steps = self.known[key] or (self.graphs.capture(before), self.graphs.capture(after))
        _keep(self.known, key, steps)
        return steps[0], attended, steps[1]

    def _before(self, tokens: Tokens) -> tuple[Tensor, Tensor, Tensor]:
        attention, put = self.layer.self_attn, self.buffers.put
        x = attention.project(self.layer.input_layernorm(tokens.hidden))
        q, k, v = attention.heads(x, tokens.rope)
        return put("query", q), put("key", k), put("value", v)

    def _after(self, tokens: Tokens, attended: Tensor) -> Tokens:
        mixed = self.layer.self_attn.o_proj(attended)
        return self.buffers.put_tokens("out", self.layer.finish(tokens, mixed))


class SteadyDecoder:
    """A decoder that owns one stream's state and pushes pieces through it.

    Not atomic: pieces write over the state. A piece that the first layer refuses changes nothing; one that
    fails further on leaves the layers apart (`is_torn`), and only `load` helps. Whoever must go back keeps an
    `export` of the moment before.
    """

    def __init__(self, decoder: HybridDecoder) -> None:
        device = decoder.norm.weight.device
        buffers, graphs = Buffers(), Graphs(device)
        self.decoder = decoder
        self.layers: list[SteadyTTT | SteadyAnchor] = [
            SteadyTTT(layer, buffers, graphs)
            if isinstance(layer, TTTLayer)
            else SteadyAnchor(cast(AnchorLayer, layer), buffers, graphs)
            for layer in decoder.layers
        ]
        self.num_tokens = self.position = 0  # the position is the caller's, as in `HybridDecoder`
        self.is_torn = False

    @torch.no_grad()
    def load(self, state: DecoderState) -> None:
        """Take a stream's state over; the given state stays as it is.

        What was captured stays good: a state of the same shapes is copied to where the last one lay.
        """
        self.is_torn = True
        for layer, past in zip(self.layers, state.layers, strict=True):
            layer.load(cast(Any, past))
        self.num_tokens, self.position = state.num_tokens, state.position
        self.is_torn = False

    def swap(self, state: DecoderState) -> DecoderState:
        """Turn to another stream: load its state, return that of the stream so far (two copies of a state).

        So one engine, with one set of captured work, serves streams of equal shapes piece by piece.
        """
        past = self.export()
        self.load(state)
        return past

    @torch.no_grad()
    def push(self, tokens: Tokens, *, needs_output: bool = True) -> Tokens:
        """Push a piece through all layers; returns the determined tokens after the final norm.

        Without output a last anchor only keeps its keys and values, and the returned tokens mean nothing.
        Raises SessionError after a piece that failed half-way.
        """
        if torch.is_inference_mode_enabled():
            raise SessionError("a steady decoder runs under no_grad, not inference_mode")
        self._check_whole()
        count, last = tokens.length, len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            if not tokens.layout:  # held back: the others have nothing to do
                break
            tokens = layer.push(tokens, needs_output=needs_output or number < last)
            self.is_torn = True
        self.is_torn = False
        self.num_tokens += count
        if not needs_output:
            return tokens
        return tokens._replace(hidden=self.decoder.norm(tokens.hidden))

    def view(self) -> DecoderState:
        """The stream's state as it lies, not copied: the next piece writes over it."""
        self._check_whole()
        layers = tuple(
            layer.cache if isinstance(layer, SteadyAnchor) else layer.state for layer in self.layers
        )
        return DecoderState(layers, self.position, self.num_tokens)

    @torch.no_grad()
    def export(self) -> DecoderState:
        """The stream's state, as a copy that later pieces leave alone."""
        state = self.view()
        layers = (own(s) if isinstance(s, TTTState) else s for s in state.layers)
        return state._replace(layers=tuple(layers))

    def _check_whole(self) -> None:
        if self.is_torn:
            raise SessionError(
                "a piece failed half-way and left the layers apart; load a state from before it"
            )


def _copy(places: list[Tensor], values: list[Tensor]) -> None:
    """Copy values to their places; what lies there already stays."""
    if len(places) != len(values):
        raise SessionError(f"a steady state has {len(places)} tensors, its next one {len(values)}")
    pairs = [(to, value) for to, value in zip(places, values, strict=True) if to is not value]
    taken = {
        to.data_ptr() for to in places
    }  # copies run side by side: read no place that is written
    pairs = [(to, value.clone() if value.data_ptr() in taken else value) for to, value in pairs]
    if pairs:
        torch._foreach_copy_([to for to, _ in pairs], [value for _, value in pairs])


def _keep(known: dict[Any, Any], key: Any, value: Any) -> None:
    """Keep captured work as the latest used; what was not used for longest gives way."""
    known.pop(key, None)
    known[key] = value
    if len(known) > MAX_GRAPHS:
        del known[next(iter(known))]


def _count(deepstack: Tensor | None) -> int:
    return 0 if deepstack is None else deepstack.shape[0]


def _shapes(state: Any) -> Any:
    """The nest of a state with shapes for tensors; the place in the chunk left out."""
    if isinstance(state, Tensor):
        return (tuple(state.shape), state.dtype)
    if isinstance(state, FastState):
        return tuple(_shapes(item) for item in state[:5])
    if isinstance(state, tuple):
        return (type(state).__name__, *(_shapes(item) for item in state))
    return state


def _with_tensors(state: Any, places: Any) -> Any:
    """The same nest with its tensors replaced, in order."""
    if isinstance(state, Tensor):
        return next(places)
    if isinstance(state, tuple):
        items = [_with_tensors(item, places) for item in state]
        return type(state)(*items) if hasattr(state, "_fields") else tuple(items)
    return state
