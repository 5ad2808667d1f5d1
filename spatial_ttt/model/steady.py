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
from spatial_ttt.model.configuration import TTTConfig
from spatial_ttt.model.decoder import AnchorLayer, HybridDecoder, TTTLayer
from spatial_ttt.model.fast_weights import BorderState, FastState
from spatial_ttt.model.kv_cache import append
from spatial_ttt.model.state import DecoderState, Tokens, TTTState, own, tensors
from spatial_ttt.model.ttt import AnchorCache

MAX_GRAPHS = 4  # per layer; the oldest gives way
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
        """The same work, replayed; it may read and write tensors of fixed address only."""
        if not self.is_on:
            return work
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            result = work()

        def replay() -> Result:
            graph.replay()
            return result

        return replay


@dataclass
class SteadyTTT:
    """A TTT layer with its state at a fixed place.

    Work on pieces of one kind is done plainly once, which compiles and caches what it needs, and captured
    the second time.
    """

    layer: TTTLayer
    buffers: Buffers
    graphs: Graphs
    state: TTTState | None = None
    border: Tensor | None = None
    known: dict[Any, Callable[[], Tokens] | None] = field(default_factory=dict)

    def load(self, state: TTTState | None) -> None:
        """Take a state over, as a copy."""
        self.known.clear()
        self.state = None if state is None else own(state)

    def push(self, tokens: Tokens, *, needs_output: bool = True) -> Tokens:
        """The layer's step; `needs_output` is for anchors."""
        config = self.layer.self_attn.config
        steady = None if self.state is None else _signature(self.state, tokens, config)
        if self.state is None or steady is None:
            return self._plainly(tokens)
        room = config.chunk_size - self.state.fast.num_tokens
        crosses = tokens.length > room
        key = (steady, crosses)
        if key not in self.known:
            ready = self._plainly(tokens)
            if _signature(self.state, tokens, config) == steady:
                self._remember(key, None)
            return ready
        count, tokens = tokens.length, self.buffers.put_tokens("in", tokens)
        if self.border is None:
            self.border = torch.zeros((), dtype=torch.long, device=tokens.hidden.device)
        self.border.fill_(room)
        work = self.known[key]
        if work is None:
            work = self._capture(tokens, crosses)
            self._remember(key, work)
        ready = work()
        left = count - room if crosses else self.state.fast.num_tokens + count
        self.state = self.state._replace(fast=self.state.fast._replace(num_tokens=left))
        return ready

    def _plainly(self, tokens: Tokens) -> Tokens:
        ready, new = self.layer(tokens, self.state)
        self._hold(cast(TTTState, new))
        return cast(Tokens, ready)

    def _hold(self, state: TTTState) -> None:
        """Keep a state: at the old place if its tensors have the old shapes."""
        if self.state is None or _shapes(self.state) != _shapes(state):
            self.known.clear()
            self.state = own(state)
            return
        places = list(tensors(self.state))
        _copy(places, list(tensors(state)))
        self.state = cast(TTTState, _with_tensors(state, iter(places)))

    def _remember(self, key: Any, work: Callable[[], Tokens] | None) -> None:
        self.known[key] = work
        if len(self.known) > MAX_GRAPHS:
            del self.known[next(iter(self.known))]

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
        key = (tokens.layout, tokens.hidden.shape, tokens.deepstack is not None, needs_output)
        tokens = self.buffers.put_tokens("in", tokens)
        shape = (*tokens.hidden.shape[:2], self.layer.self_attn.o_proj.in_features)
        attended = self.buffers.like("attended", tokens.hidden.new_empty(shape))
        before, after = partial(self._before, tokens), partial(self._after, tokens, attended)
        if key in self.known:
            found = self.known[key]
            if found is None:
                found = (self.graphs.capture(before), self.graphs.capture(after))
            self.known[key] = found
            before, after = found  # type: ignore[assignment]
        else:
            self.known[key] = None
            if len(self.known) > MAX_GRAPHS:
                del self.known[next(iter(self.known))]
        query, keys, values = before()
        keys, values = keys.clone(), values.clone()  # the cache may keep them as they are
        if not needs_output and not isinstance(self.cache, BoundedCache):
            self.cache = append(self.cache, keys, values)
            return tokens
        out, self.cache = self.layer.self_attn.remember(query, keys, values, self.cache)
        attended.copy_(out)
        return after()

    def _before(self, tokens: Tokens) -> tuple[Tensor, Tensor, Tensor]:
        attention, put = self.layer.self_attn, self.buffers.put
        x = attention.project(self.layer.input_layernorm(tokens.hidden))
        q, k, v = attention.heads(x, tokens.rope)
        return put("query", q), put("key", k), put("value", v)

    def _after(self, tokens: Tokens, attended: Tensor) -> Tokens:
        mixed = self.layer.self_attn.o_proj(attended)
        return self.buffers.put_tokens("out", self.layer.finish(tokens, mixed))


class SteadyDecoder:
    """A decoder that owns one stream's state and pushes pieces through it."""

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
        self.num_tokens = self.position = 0

    @torch.no_grad()
    def load(self, state: DecoderState) -> None:
        """Take a stream's state over; the given state stays as it is."""
        for layer, past in zip(self.layers, state.layers, strict=True):
            layer.load(cast(Any, past))
        self.num_tokens, self.position = state.num_tokens, state.position

    @torch.no_grad()
    def push(self, tokens: Tokens, *, needs_output: bool = True) -> Tokens:
        """Push a piece through all layers; returns the determined tokens after the final norm.

        Without output a last anchor only keeps its keys and values, and the returned tokens mean nothing.
        """
        if torch.is_inference_mode_enabled():
            raise SessionError("a steady decoder runs under no_grad, not inference_mode")
        self.num_tokens += tokens.length
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            if not tokens.layout:  # held back: the others have nothing to do
                break
            tokens = layer.push(tokens, needs_output=needs_output or number < last)
        if not needs_output:
            return tokens
        return tokens._replace(hidden=self.decoder.norm(tokens.hidden))

    @torch.no_grad()
    def export(self) -> DecoderState:
        """The stream's state, as a copy that later pieces leave alone."""
        layers = tuple(
            layer.cache if isinstance(layer, SteadyAnchor) else own(layer.state)
            for layer in self.layers
        )
        return DecoderState(layers, self.position, self.num_tokens)


def _signature(state: TTTState, tokens: Tokens, config: TTTConfig) -> Any:
    """What a captured step depends on besides numbers; None: this step is not steady."""
    fast, count = state.fast, tokens.length
    if not 0 < count <= config.chunk_size or state.window is None:
        return None
    is_open = fast.gradient is not None and fast.beta_sum is not None
    has_written = fast.momentum is not None or not config.use_momentum
    has_written &= fast.master is not None or config.norm_placement != "pre"
    if not (is_open and has_written):
        return None
    return (tokens.layout, tokens.hidden.shape, _count(tokens.deepstack), _shapes(state))


def _copy(places: list[Tensor], values: list[Tensor]) -> None:
    """Copy values to their places; what lies there already stays."""
    if len(places) != len(values):
        raise SessionError(f"a steady state has {len(places)} tensors, its next one {len(values)}")
    pairs = [(to, value) for to, value in zip(places, values, strict=True) if to is not value]
    if pairs:
        torch._foreach_copy_([to for to, _ in pairs], [value for _, value in pairs])


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
