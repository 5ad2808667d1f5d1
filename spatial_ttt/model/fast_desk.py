"""Long pieces of a stream: each step of their fast weights is one launch.

A step (write the full chunk, add to the new chunk's sums) is two dozen small kernels, and the host needs longer to
issue them than a GPU to run them. So they work at a desk, tensors of fixed address: a layer's state is laid on it,
then chunk by chunk its tokens; what happens there is captured once and replayed for every layer of this shape.
What queries read needs no such order: it is made on a stream beside, while the next write leaves most of a GPU idle.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from threading import Lock
from typing import NamedTuple

import torch
from torch import Tensor

from spatial_ttt.model.beside import Lane
from spatial_ttt.model.configuration import TTTConfig
from spatial_ttt.model.fast_weights import ROW_EPS, FastState, FastWeights
from spatial_ttt.model.kernels import commit as kernels
from spatial_ttt.model.kernels import mixing
from spatial_ttt.model.kernels.captured import Graphs

SIZES = 8
"""A step is done for so many eighths of a chunk as hold its tokens; those that are missing write nothing."""


class _Kind(NamedTuple):
    """What a desk is for."""

    shape: tuple[int, int, int]  # batch, heads, channels of a head
    dtypes: tuple[torch.dtype, ...]  # of queries, learning rates, momentum
    rule: TTTConfig
    device: torch.device
    stream: int


class Unshaped(NamedTuple):
    """Tokens whose queries, keys and values are made on the desk: silu, unit length, rotation."""

    fast: Tensor  # [B, L, 3 * H * D] query, key, value after the convolution
    rope: Tensor  # [B, L, head_dim]
    lr: Tensor  # [B, H, L, 3], as in `FastInputs`
    momentum: Tensor  # [B, H, L]
    eps: float  # added to the length of queries and keys

    @property
    def length(self) -> int:
        """L."""
        return self.fast.shape[1]


class _Laid(NamedTuple):
    """Tokens on the desk, as `kernels.add` reads them."""

    key: Tensor  # [B, H, L, D]
    value: Tensor  # [B, H, L, D]
    lr: Tensor  # [B, H, L, 3]
    momentum: Tensor  # [B, H, L]

    def cut(self, count: int) -> _Laid:
        """The first so many."""
        return _Laid(*(x[:, :, :count] for x in self))


class _Side(NamedTuple):
    """One of two: a write works on the one while what the other holds is still read."""

    low: Tensor  # [B, H, 3, D, D] weights, rounded
    rows: Tensor  # [2, B, H, chunk, D] keys, values
    lr: Tensor  # [B, H, chunk, 3]
    momentum: Tensor  # [B, H, chunk]

    @property
    def tokens(self) -> _Laid:
        """A chunk's places."""
        key, value = self.rows
        return _Laid(key, value, self.lr, self.momentum)


class _Step(NamedTuple):
    """Tokens of one chunk."""

    start: int
    stop: int
    size: int  # as many are worked on, those that are missing write nothing
    writes: bool  # the full chunk before them first
    side: int


def applies(query: Tensor) -> bool:
    """Here work may be captured: on a CUDA stream but the default one, where long pieces go (`model.beside`)."""
    if query.device.type != "cuda" or torch.cuda.is_current_stream_capturing():
        return False
    current = torch.cuda.current_stream(query.device)
    return current != torch.cuda.default_stream(query.device)


def scan(
    state: FastState, inputs: Unshaped, norms: Tensor, rule: TTTConfig
) -> tuple[Tensor, FastState]:
    """As `fast_stream.scan`, at the desk of the current stream."""
    return _desk(_kind(inputs, rule)).scan(state, inputs, norms)


def _kind(inputs: Unshaped, rule: TTTConfig) -> _Kind:
    fast, heads = inputs.fast, inputs.momentum.shape[1]
    on_gpu = fast.device.type == "cuda"
    stream = torch.cuda.current_stream(fast.device).cuda_stream if on_gpu else 0
    dtypes = (fast.dtype, inputs.lr.dtype, inputs.momentum.dtype)
    shape = (fast.shape[0], heads, fast.shape[-1] // (3 * heads))
    return _Kind(shape, dtypes, rule, fast.device, stream)


@lru_cache(maxsize=4)
def _desk(kind: _Kind) -> Desk:
    return Desk(kind)


class Desk:
    """The places, and what was captured there; one piece at a time."""

    def __init__(self, kind: _Kind) -> None:
        batch, heads, dim = kind.shape
        dtype, lr_dtype, momentum_dtype = kind.dtypes
        self.rule, chunk = kind.rule, kind.rule.chunk_size

        def place(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=kind.device)

        square = (batch, heads, 3, dim, dim)
        self.weights, self.write, self.sums = (place(*square) for _ in range(3))
        self.total = place(*square) if self.rule.norm_placement == "pre" else None
        self.beta, self.norms = place(batch, heads), place(heads, 3, dim)

        def side() -> _Side:
            rows = place(2, batch, heads, chunk, dim, dtype=dtype)
            lr = place(batch, heads, chunk, 3, dtype=lr_dtype)
            momentum = place(batch, heads, chunk, dtype=momentum_dtype)
            return _Side(place(*square, dtype=dtype), rows, lr, momentum)

        self.sides = side(), side()
        self.sizes = sorted({-(-chunk * (n + 1) // SIZES) for n in range(SIZES)})
        self.known: dict[tuple[int, bool, int], Callable[[], None]] = {}
        self.graphs = Graphs(kind.device, on_current=True)
        self.lane = Lane(kind.device, is_first=True)
        self.turn = Lock()

    def scan(self, state: FastState, inputs: Unshaped, norms: Tensor) -> tuple[Tensor, FastState]:
        """Chunk by chunk, as `fast_weights.scan`; the new state lies elsewhere."""
        batch, heads, _, dim = self.sides[0].tokens.key.shape
        out = inputs.fast.new_empty(batch, heads, inputs.length, dim)
        steps, filled = self._steps(state.num_tokens, inputs.length)
        with self.turn:
            is_laid = self.lane.run(partial(self._lay, inputs, steps[0]))
            self._lay_state(state, norms)
            is_read = [is_laid, is_laid]  # the rounded weights of a side, by all who will
            for step, following in zip(steps, (*steps[1:], None), strict=True):
                is_laid()
                if following is not None:  # on the other side, while this one is worked on
                    is_laid = self.lane.run(partial(self._lay, inputs, following))
                if step.writes:
                    is_read[step.side]()
                self._do(step)
                is_read[step.side] = self.lane.run(partial(self._read, inputs, step, out))
            new = self._taken(state, filled, any(step.writes for step in steps))
            is_read[steps[-1].side]()
            return out, new

    def _steps(self, filled: int, length: int) -> tuple[list[_Step], int]:
        """How so many tokens follow those of an open chunk; and how many the last chunk has then."""
        steps, start, side, chunk = list[_Step](), 0, 0, self.rule.chunk_size
        while start < length:
            writes = filled == chunk
            if writes:
                filled, side = 0, 1 - side
            stop = min(length, start + chunk - filled)
            size = next(size for size in self.sizes if size >= stop - start)
            steps.append(_Step(start, stop, size, writes, side))
            filled, start = filled + stop - start, stop
        return steps, filled

    def _lay_state(self, state: FastState, norms: Tensor) -> None:
        """Put a layer's state on the desk; what it has not yet is zero, which changes no sum."""
        pairs = [(self.weights, kernels.joined(state.weights))]
        for to, parts in ((self.write, state.momentum), (self.sums, state.gradient)):
            if parts is None:
                to.zero_()
            else:
                pairs.append((to, kernels.joined(parts)))
        if self.total is not None:
            pairs.append((self.total, kernels.joined(state.master or state.weights)))
        torch._foreach_copy_([to for to, _ in pairs], [x for _, x in pairs])
        self.sides[0].low.copy_(self.weights)
        self.norms.copy_(norms)
        if state.beta_sum is None:
            self.beta.zero_()
        else:
            self.beta.copy_(state.beta_sum)

    def _lay(self, inputs: Unshaped, step: _Step) -> None:
        """Put a step's tokens on their side, in place of those before."""
        _, rows, lr, momentum = self.sides[step.side]
        start, stop = step.start, step.stop
        rates = inputs.lr[:, :, start:stop], inputs.momentum[:, :, start:stop]
        fast, rope = inputs.fast[:, start:stop], inputs.rope[:, start:stop]
        mixing.lay(fast, rope, rates, (rows, lr, momentum), step.size, inputs.eps)

    def _read(self, inputs: Unshaped, step: _Step, out: Tensor) -> None:
        """What the queries of a step's tokens read, [B, H, L, D] of `out`."""
        rows = out[:, :, step.start : step.stop]
        fast, rope = inputs.fast[:, step.start : step.stop], inputs.rope[:, step.start : step.stop]
        mixing.prepare_queries(rows, fast, rope, inputs.eps)
        kernels.read(self.sides[step.side].low, rows, rows)

    def _do(self, step: _Step) -> None:
        """The work on what lies on the desk, replayed."""
        key = (step.size, step.writes, step.side)
        if key not in self.known:
            self.known[key] = self.graphs.capture(lambda: self._work(*key))
        self.known[key]()

    def _work(self, size: int, writes: bool, side: int) -> None:
        """A step as kernels: all they read and make lies on the desk."""
        low, tokens = self.sides[side].low, self.sides[side].tokens.cut(size)
        if writes:
            past = FastWeights(*self.write.unbind(2))
            base = FastWeights(*(self.weights if self.total is None else self.total).unbind(2))
            places = (self.write, self.weights, self.total, low)
            into = kernels.Into(low.dtype, ROW_EPS, *places)
            kernels.write(self.sums, past, self.beta, base, self.rule, self.norms, into)
        # In a row: a graph of several branches costs more to launch than they save (measured).
        kernels.add(low, tokens, None if writes else self.sums, self.sums)
        kernels.add_momentum(tokens.momentum, None if writes else self.beta, self.beta)

    def _taken(self, past: FastState, filled: int, has_written: bool) -> FastState:
        """The state on the desk, copied off it."""
        wanted = [self.weights, self.sums]
        has_momentum = self.rule.use_momentum and (has_written or past.momentum is not None)
        has_master = self.total is not None and (has_written or past.master is not None)
        wanted += [self.write] if has_momentum else []
        wanted += [self.total] if has_master else []  # type: ignore[list-item]
        copies = [torch.empty_like(x) for x in wanted]
        torch._foreach_copy_(copies, wanted)
        parts = [FastWeights(*x.unbind(2)) for x in copies]
        weights, sums = parts[:2]
        momentum = parts[2] if has_momentum else None
        master = parts[-1] if has_master else None
        return FastState(weights, master, momentum, sums, self.beta.clone(), filled)
