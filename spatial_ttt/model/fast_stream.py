"""The fast-weight rule on a stream that is only watched, for wide heads on a GPU: `fast_weights.scan` in few launches.

The same chunks, sums and writes; three kinds of matrices are treated as one (see `kernels.commit`), and what a
piece adds to a chunk is added up in place once the sums are its own.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from spatial_ttt.errors import SessionError
from spatial_ttt.model.configuration import TTTConfig
from spatial_ttt.model.fast_weights import (
    ROW_EPS,
    BriefState,
    FastInputs,
    FastState,
    FastWeights,
    continued,
    masked,
)
from spatial_ttt.model.kernels import commit as kernels


class HomeState(NamedTuple):
    """A `FastState` of captured work, written over where it lies; its chunk is open, every tensor has its final shape.

    Sums and weights lie as `kernels.commit` wants them, `low` holds the weights rounded.
    """

    weights: FastWeights
    master: FastWeights | None
    momentum: FastWeights | None
    gradient: FastWeights
    beta_sum: Tensor
    border: (
        Tensor | None
    )  # int64 scalar: tokens of the next piece that still belong to the open chunk (None: all)
    low: Tensor


def scan(
    state: FastState | BriefState | HomeState,
    inputs: FastInputs,
    norms: Tensor,
    rule: TTTConfig,
    *,
    keep_state: bool = True,
) -> tuple[Tensor, Any]:
    """As `fast_weights.scan`; `norms` [H, 3, D] are those of the trained weights' rows."""
    if isinstance(state, HomeState):
        return _at_home(state, inputs, norms, rule)
    if isinstance(state, BriefState):
        return continued(
            state, inputs, lambda opened, left: _chunks(opened, inputs, norms, rule, left)
        )
    return _chunks(state, inputs, norms, rule, None if keep_state else inputs.length)


def _chunks(
    state: FastState, inputs: FastInputs, norms: Tensor, rule: TTTConfig, left: int | None
) -> tuple[Tensor, FastState]:
    """Chunk by chunk; of `left` tokens at most that come from here on (None: any number) these are the first."""
    out = torch.empty_like(inputs.query)
    low: Tensor | None = None
    start, is_own = 0, False
    while start < inputs.length:
        if state.num_tokens == rule.chunk_size:
            is_last = left is not None and left - start <= rule.chunk_size
            if is_last:  # nothing will be written any more: only the rounded weights are read
                low = _commit_last(state, norms, rule, inputs.query.dtype, is_own)
                state = FastState(FastWeights(*low.unbind(2)), None, None, None, None, 0)
            else:
                state, low = _commit(state, norms, rule, inputs.query.dtype)
        stop = min(inputs.length, start + rule.chunk_size - state.num_tokens)
        piece = inputs.cut(start, stop)
        low = kernels.rounded(state.weights, inputs.query.dtype) if low is None else low
        kernels.read(low, piece.query, out[:, :, start:stop])
        count = state.num_tokens + piece.length
        if left is not None and state.num_tokens + left - start <= rule.chunk_size:
            # No token comes after this chunk: nothing will be written.
            state = FastState(state.weights, None, None, None, None, count)
        else:
            state = _add(state, low, piece, is_own)._replace(num_tokens=count)
            is_own = True
        start = stop
    return out, state


def _add(state: FastState, low: Tensor, piece: FastInputs, is_own: bool) -> FastState:
    """Sums with the tokens of a piece; written over where they are the scan's own."""
    past = None if state.gradient is None else kernels.joined(state.gradient)
    is_own &= past is not None
    sums = kernels.add(low, piece, past, past if is_own else None)
    beta = state.beta_sum if is_own else None
    beta = kernels.add_momentum(piece.momentum, state.beta_sum, beta)
    return state._replace(gradient=FastWeights(*sums.unbind(2)), beta_sum=beta)


def _commit(
    state: FastState, norms: Tensor, rule: TTTConfig, dtype: torch.dtype
) -> tuple[FastState, Tensor]:
    """Write the open chunk; the new state, and its weights rounded."""
    into = kernels.Into(dtype, ROW_EPS)
    write, weights, total, low = _written(state, _sums(state), norms, rule, into)
    master = None if total is None else FastWeights(*total.unbind(2))
    momentum = FastWeights(*write.unbind(2)) if rule.use_momentum else None
    return FastState(FastWeights(*weights.unbind(2)), master, momentum, None, None, 0), low


def _commit_last(
    state: FastState, norms: Tensor, rule: TTTConfig, dtype: torch.dtype, is_own: bool
) -> Tensor:
    """Write the open chunk; its weights rounded are all that is kept. Sums of one's own are written over."""
    sums = _sums(state)
    place = sums if is_own else torch.empty_like(sums)
    into = kernels.Into(dtype, ROW_EPS, place, place)
    return _written(state, sums, norms, rule, into)[3]


def _sums(state: FastState) -> Tensor:
    """The open chunk's sums, side by side."""
    if state.gradient is None or state.beta_sum is None:
        raise SessionError(
            "the open chunk has no sums to write: its state was made for reading only"
        )
    return kernels.joined(state.gradient)


def _written(
    state: FastState, sums: Tensor, norms: Tensor, rule: TTTConfig, into: kernels.Into
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """What `kernels.write` makes of an open chunk with these sums."""
    base = state.weights if state.master is None else state.master
    beta = cast(Tensor, state.beta_sum)
    # A question waits for the host: a graph instead of fifteen launches.
    return kernels.write(sums, state.momentum, beta, base, rule, norms, into, replayed=True)


def _at_home(
    state: HomeState, inputs: FastInputs, norms: Tensor, rule: TTTConfig
) -> tuple[Tensor, HomeState]:
    """At most a chunk of tokens, whose border the device knows; both sides are done for all tokens and masked."""
    sums, beta = kernels.joined(state.gradient), state.beta_sum
    out = kernels.read(state.low, inputs.query)
    if state.border is None:
        kernels.add(state.low, inputs, sums, sums)
        kernels.add_momentum(inputs.momentum, beta, beta)
        return out, state
    is_before = torch.arange(inputs.length, device=state.border.device) < state.border
    before, after = masked(inputs, is_before), masked(inputs, ~is_before)
    kernels.add(state.low, before, sums, sums)
    kernels.add_momentum(before.momentum, beta, beta)
    base = state.weights if state.master is None else state.master
    places = (state.momentum, state.weights, state.master)
    write, weights, total = (None if p is None else kernels.joined(p) for p in places)
    into = kernels.Into(state.low.dtype, ROW_EPS, write, weights, total, state.low)
    kernels.write(sums, state.momentum, beta, base, rule, norms, into)
    later = kernels.read(state.low, inputs.query)
    kernels.add(state.low, after, None, sums)
    kernels.add_momentum(after.momentum, None, beta)
    return torch.where(is_before[:, None], out, later), state
