"""A TTT layer in its steady state, captured and replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from spatial_ttt.model.decoder import TTTLayer
from spatial_ttt.model.fast_stream import HomeState
from spatial_ttt.model.fast_weights import BorderState, FastState
from spatial_ttt.model.kernels import attention, commit
from spatial_ttt.model.kernels.captured import Graphs
from spatial_ttt.model.state import Tokens, TTTState, own, tensors
from spatial_ttt.model.steady_graphs import Buffers, Moves, copy_all, keep_latest, taps
from spatial_ttt.model.steady_window import SlidingWindow


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
    window: SlidingWindow | None = None  # home's window, where a kernel can read one that slides
    border: Tensor | None = None
    low: Tensor | None = None  # home's weights as products read them, where kernels keep them so
    is_low_old: bool = True
    shapes: Any = None  # of each part of `state`
    home_shapes: Any = None  # and of home
    known: dict[Any, Callable[[], Tokens] | None] = field(default_factory=dict)

    def load(self, state: TTTState | None, moves: Moves) -> None:
        """Take a state over; the moves copy home what fits there, the rest is left as it is until it is settled.

        Its shapes are looked at once, since captured steps keep them.
        """
        self.shapes = None if state is None else tuple(_shapes(part) for part in state)
        self.state = None if state is None else self._settle(state, moves)
        self.is_low_old = True

    def own_tensors(self) -> Iterator[Tensor]:
        """Everything the layer keeps in memory: its state, home, and what captured work reads beside it."""
        window = None if self.window is None else self.window.past
        yield from tensors((self.state, self.home, window, self.border, self.low))

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
                self._make_home(tokens.length)
                keep_latest(self.known, key, None)
            return ready
        count, tokens = tokens.length, self.buffers.put_tokens(tokens)
        if self.window is not None:
            self.window.make_room(count)
        if self.border is None:
            self.border = torch.zeros((), dtype=torch.long, device=tokens.hidden.device)
        if crosses:
            self.border.fill_(room)
        self._round_weights(tokens)
        work = self.known[key] or self._capture(tokens, crosses)
        keep_latest(self.known, key, work)
        ready = work()
        left = count - room if crosses else self.state.fast.num_tokens + count
        window = self.state.window if self.window is None else self.window.advance(ready.length)
        self.state = self.state._replace(
            fast=self.state.fast._replace(num_tokens=left), window=window
        )
        return ready

    def _plainly(self, tokens: Tokens) -> Tokens:
        ready, new = self.layer(tokens, self.state)
        moves = Moves()
        self.load(cast(TTTState, new), moves)
        moves.make()
        return cast(Tokens, ready)

    def _round_weights(self, tokens: Tokens) -> None:
        """Keep `low` true to weights that came from elsewhere; captured work keeps it so itself."""
        assert self.state is not None
        attn, weights = self.layer.self_attn, self.state.fast.weights
        dtype = tokens.hidden.dtype
        if not commit.applies(tokens.hidden, attn.rule(dtype), weights.gate.shape):
            self.low = None
        elif self.low is None or self.is_low_old:
            found = commit.rounded(weights, dtype)
            self.low = found if self.low is None else self.low.copy_(found)
        self.is_low_old = False

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
        return (tokens.layout, tokens.hidden.shape, taps(tokens), self.shapes)

    def _settle(self, state: TTTState, moves: Moves) -> TTTState:
        """The same state, each part of it at home whose tensors have home's shapes."""
        if self.home is None:
            return state
        parts: list[Any] = []
        named = zip(state._fields, state, self.home, self.shapes, self.home_shapes, strict=True)
        for name, new, old, shapes, home_shapes in named:
            if shapes == home_shapes:
                if name == "window" and self.window is not None:
                    new = self.window.load(cast(Any, new), moves)
                else:
                    places = list(tensors(old))
                    moves.add(places, tensors(new))
                    new = _with_tensors(new, iter(places))
            parts.append(new)
        return TTTState(*parts)

    def _make_home(self, count: int) -> None:
        """Settle where the state is now, with tensors that nobody else holds; other captured work is over.

        The next piece of this kind has `count` tokens.
        """
        assert self.state is not None and self.state.window is not None
        if self.home is None or self.home_shapes != self.shapes:
            self.known.clear()
            self.window = None
            self.home = self.state = own(self.state)
            self.home_shapes = self.shapes
        keys, values = cast("tuple[Tensor, Tensor]", self.state.window)
        if not (attention.applies(keys) and attention.fits(keys, values)):
            return
        if self.window is None or not self.window.takes(count):
            self.known.clear()
            self.window = SlidingWindow((keys, values), count)
            self.state = self.state._replace(window=self.window.view)
            self.home = cast(TTTState, self.home)._replace(window=self.window.view)

    def _capture(self, tokens: Tokens, crosses: bool) -> Callable[[], Tokens]:
        state, border = self.state, self.border
        assert state is not None and border is not None
        slides = self.window is not None  # then the kernels keep the window where it lies
        window: Any = state.window if self.window is None else self.window.past
        places = list(tensors(state._replace(window=None) if slides else state))
        fast: Any = state.fast
        five: Any = (fast.weights, fast.master, fast.momentum, fast.gradient, fast.beta_sum)
        if self.low is not None:
            fast = HomeState._make((*five, border if crosses else None, self.low))
        elif crosses:
            fast = BorderState._make((*five, border))

        def work() -> Tokens:
            ready, new = self.layer(tokens, state._replace(fast=fast, window=window))
            last = FastState._make((*new.fast[:5], 0))
            new = new._replace(fast=last, window=None if slides else new.window)
            copy_all(places, list(tensors(new)))
            return self.buffers.put_tokens(ready)

        return self.graphs.capture(work)


def _shapes(state: Any) -> Any:
    """The nest of a state with shapes for tensors; the place in the chunk left out."""
    if isinstance(state, Tensor):
        return (state.shape, state.dtype)
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
