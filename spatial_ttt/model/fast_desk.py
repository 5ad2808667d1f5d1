"""Long pieces of a stream: each step of their fast weights is one launch.

A step (write the full chunk, add to the new chunk's sums) is two dozen small kernels, and the host needs longer to
issue them than a GPU to run them. So they work at a desk, tensors of fixed address: a layer's state is laid on it,
then chunk by chunk its tokens; what happens there is captured once and replayed for every layer of this shape.
What queries read needs no such order: it is made at a place of its own on a stream beside, while the next write leaves
most of a GPU idle.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from threading import Lock
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spatial_ttt.model.beside import Lane, current, nothing
from spatial_ttt.model.configuration import TTTConfig
from spatial_ttt.model.fast_weights import ROW_EPS, FastState, FastWeights
from spatial_ttt.model.kernels import commit as kernels
from spatial_ttt.model.kernels import mixing, runs
from spatial_ttt.model.kernels.captured import Graphs

SIZES = 8
"""A step is done for so many eighths of a chunk as hold its tokens; those that are missing write nothing."""


class _Kind(NamedTuple):
    """What a desk is for."""

    shape: tuple[int, int, int]  # batch, heads, channels of a head
    dtypes: tuple[torch.dtype, torch.dtype]  # of queries, of learning rates
    rule: TTTConfig
    device: torch.device
    stream: torch.cuda.Stream | None  # None without CUDA


class Unshaped(NamedTuple):
    """Tokens whose queries, keys and values are made on the desk: silu, unit length, rotation."""

    fast: Tensor  # [1, L, 3 * H * D] query, key, value after the convolution; what queries read is written over them
    rope: Tensor  # [1, L, head_dim]
    lr: Tensor  # [1, H, L, 3], as in `FastInputs`
    momentum: Tensor  # [1, H, L]
    eps: float  # added to the length of queries and keys

    @property
    def length(self) -> int:
        """L."""
        return self.fast.shape[1]

    def cut(self, start: int, stop: int) -> Unshaped:
        """Tokens start..stop-1."""
        fast, rope = self.fast[:, start:stop], self.rope[:, start:stop]
        rates = self.lr[:, :, start:stop], self.momentum[:, :, start:stop]
        return Unshaped(fast, rope, *rates, self.eps)


class _Laid(NamedTuple):
    """Tokens on the desk, as `kernels.add` reads them."""

    key: Tensor  # [B, H, L, D]
    value: Tensor  # [B, H, L, D]
    lr: Tensor  # [B, H, L, 3]

    def cut(self, count: int) -> _Laid:
        """The first so many."""
        return _Laid(*(x[:, :, :count] for x in self))


def applies(fast: Tensor, state: Any, rule: TTTConfig) -> bool:
    """Tokens [1, L, 3 * H * D] may be worked on here: on a stream that goes on, where the kernels of wide heads run.

    Then make `room` for them and scan on a stream where work may be captured: not the default one (`model.beside`).
    """
    if not isinstance(state, FastState) or fast.shape[0] > 1:
        return False
    return kernels.applies(fast, rule, state.weights.gate.shape)


class Room(NamedTuple):
    """Memory for the state after a scan; the caller's, so that it is free as soon as the caller lets go of it."""

    weights: Tensor  # [B, H, 3, D, D], as all below
    sums: Tensor
    write: Tensor | None  # the momentum
    total: Tensor | None  # the master
    beta: Tensor  # [B, H]


def room(state: FastState, length: int, rule: TTTConfig) -> Room:
    """Memory for a scan of so many tokens on a state."""
    gate, has_written = state.weights.gate, state.num_tokens + length > rule.chunk_size
    has_momentum = rule.use_momentum and (has_written or state.momentum is not None)
    has_master = rule.norm_placement == "pre" and (has_written or state.master is not None)
    weights, sums = kernels.room(gate, torch.float32), kernels.room(gate, torch.float32)
    return Room(
        weights,
        sums,
        torch.empty_like(weights) if has_momentum else None,
        torch.empty_like(weights) if has_master else None,
        weights.new_empty(gate.shape[:2]),
    )


def scan(
    state: FastState, inputs: Unshaped, norms: Tensor, rule: TTTConfig, place: Room
) -> tuple[Tensor, FastState]:
    """As `fast_stream.scan`, at the desk of the current stream; the new state lies in `place`."""
    return _desk(_kind(inputs, rule)).scan(state, inputs, norms, place)


def _kind(inputs: Unshaped, rule: TTTConfig) -> _Kind:
    fast, heads = inputs.fast, inputs.momentum.shape[1]
    dtypes = fast.dtype, inputs.lr.dtype
    shape = (fast.shape[0], heads, fast.shape[-1] // (3 * heads))
    return _Kind(shape, dtypes, rule, fast.device, current(fast.device))


@lru_cache(maxsize=4)
def _desk(kind: _Kind) -> Desk:
    return Desk(kind)


class Desk:
    """The places, and what was captured there; one piece at a time."""

    def __init__(self, kind: _Kind) -> None:
        batch, heads, dim = kind.shape
        dtype, lr_dtype = kind.dtypes
        self.rule, chunk = kind.rule, kind.rule.chunk_size

        def place(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=kind.device)

        square = (batch, heads, 3, dim, dim)
        self.weights, self.write, self.sums = (place(*square) for _ in range(3))
        self.total = place(*square) if self.rule.norm_placement == "pre" else None
        # Rounded weights: those before the latest write are still read when it makes the others. With each goes the
        # sum of the momentum since it was made.
        self.lows, self.low = place(2, *square, dtype=dtype), 0
        self.betas, self.norms = place(2, batch, heads), place(heads, 3, dim)
        self.rows = place(2, batch, heads, chunk, dim, dtype=dtype)  # keys, values
        key, value = self.rows
        self.tokens = _Laid(key, value, place(batch, heads, chunk, 3, dtype=lr_dtype))
        self.queries = torch.zeros_like(key)
        self.sizes = sorted({-(-chunk * (n + 1) // SIZES) for n in range(SIZES)})
        self.known: dict[tuple[int, ...], Callable[[], object]] = {}
        # Two, since each works in memory of its own: they run beside each other.
        self.graphs, self.read_graphs = (Graphs(kind.device, on_current=True) for _ in range(2))
        self.lane = Lane(kind.stream)
        self.turn = Lock()

    def scan(
        self, state: FastState, inputs: Unshaped, norms: Tensor, place: Room
    ) -> tuple[Tensor, FastState]:
        """Chunk by chunk, as `fast_weights.scan`; the state lies in `place`, what was read among the tokens.

        On the stream that the desk is for.
        """
        chunk = self.rule.chunk_size
        start, filled = 0, state.num_tokens
        with self.turn:
            self._lay(state, norms)
            # `before` waits until the rounded weights that the next write replaces are read no more.
            before = are_read = nothing
            while start < inputs.length:
                writes = filled == chunk
                if writes:
                    filled, self.low = 0, 1 - self.low
                    before()
                    before = are_read
                stop = min(inputs.length, start + chunk - filled)
                piece = inputs.cut(start, stop)
                self._step(piece, writes)
                are_read = self.lane.run(partial(self._read, piece))
                filled, start = filled + stop - start, stop
            new = self._taken(place, filled)
            are_read()
            return mixing.queries_of(inputs.fast, self.weights.shape[-1]), new

    def _lay(self, state: FastState, norms: Tensor) -> None:
        """Put a layer's state on the desk; what it has not yet is zero, which changes no sum."""
        weights, write, sums = (
            None if parts is None else kernels.joined(parts)
            for parts in (state.weights, state.momentum, state.gradient)
        )
        sources = [weights, weights, write, sums, state.beta_sum, norms]
        places = [self.weights, self.lows[self.low], self.write, self.sums]
        places += [self.betas[self.low], self.norms]
        if self.total is not None:
            sources.append(kernels.joined(state.master or state.weights))
            places.append(self.total)
        runs.put(sources, places)

    def _step(self, piece: Unshaped, writes: bool) -> None:
        """Lay tokens on the desk, in place of those before, and do the work."""
        size = self._size(piece)
        to, rates = (self.rows, self.tokens.lr, self.betas[self.low]), (piece.lr, piece.momentum)
        mixing.lay(piece.fast, piece.rope, rates, to, size, piece.eps, has_past=not writes)
        key = (size, writes, self.low)
        if key not in self.known:
            self.known[key] = self.graphs.capture(partial(self._work, *key))
        self.known[key]()

    def _read(self, piece: Unshaped) -> None:
        """Put what a step's queries read in their place."""
        low, size = self.lows[self.low], self._size(piece)
        laid = _first(self.queries, size)
        mine = laid[:, :, : piece.length]
        mixing.prepare_queries(piece.fast, piece.rope, piece.eps, mine)
        key = (size, self.low)
        if key not in self.known:
            self.known[key] = self.read_graphs.capture(partial(kernels.read_inner, low, laid, laid))
        self.known[key]()
        # Not captured: where the piece lies is known now only, and this saves a copy.
        kernels.read_outer(low, mine, mixing.queries_of(piece.fast, laid.shape[-1]))

    def _size(self, piece: Unshaped) -> int:
        return next(size for size in self.sizes if size >= piece.length)

    def _work(self, size: int, writes: bool, which: int) -> None:
        """A step as kernels: all they read and make lies on the desk; `which` rounded weights are the current ones."""
        tokens, low = self.tokens.cut(size), self.lows[which]
        if writes:
            past = FastWeights(*self.write.unbind(2))
            base = FastWeights(*(self.weights if self.total is None else self.total).unbind(2))
            places = (self.write, self.weights, self.total, low)
            into = kernels.Into(low.dtype, ROW_EPS, *places)
            beta = self.betas[1 - which]
            kernels.write(self.sums, past, beta, base, self.rule, self.norms, into)
        kernels.add(low, tokens, None if writes else self.sums, self.sums)

    def _taken(self, place: Room, filled: int) -> FastState:
        """The state on the desk, copied off it."""
        pairs = [(self.weights, place.weights), (self.sums, place.sums)]
        pairs += [(self.betas[self.low], place.beta)]
        pairs += [] if place.write is None else [(self.write, place.write)]
        pairs += [] if place.total is None or self.total is None else [(self.total, place.total)]
        runs.put(*zip(*pairs, strict=True))
        return FastState(
            FastWeights(*place.weights.unbind(2)),
            None if place.total is None else FastWeights(*place.total.unbind(2)),
            None if place.write is None else FastWeights(*place.write.unbind(2)),
            FastWeights(*place.sums.unbind(2)),
            place.beta,
            filled,
        )


def _first(rows: Tensor, count: int) -> Tensor:
    """Dense [B, H, count, D] where rows [B, H, R, D] begin."""
    batch, heads, _, dim = rows.shape
    return rows.flatten()[: batch * heads * count * dim].view(batch, heads, count, dim)
