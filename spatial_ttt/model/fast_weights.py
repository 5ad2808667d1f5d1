"""The fast-weight rule, written once: apply, gradient, commit, scan.

Shapes: B batch, H fast heads, L tokens, D channels of a fast head (keys, queries and values), F fast hidden size.
A scan applies before it writes: inside a chunk every output uses the weights made from strictly
earlier chunks, and a full chunk is written when the first token after it arrives. Because all
tokens of a chunk are written with the weights of its start, their gradients add up: the state keeps
sums instead of keys and values. Source: Spatial-TTT, section 3, and LaCT's large-chunk update.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from spatial_ttt.errors import ConfigError, SessionError
from spatial_ttt.model.branching import UnevenBranches
from spatial_ttt.model.configuration import TTTConfig
from spatial_ttt.model.kernels import factors, resolve_backend
from spatial_ttt.model.newton_schulz import newton_schulz

ROW_EPS = 1e-5


class FastWeights(NamedTuple):
    """The fast network f(z) = down [ silu(gate z) * (up z) ]; also a gradient or a momentum of it."""

    gate: Tensor  # [B, H, F, D]
    up: Tensor  # [B, H, F, D]
    down: Tensor  # [B, H, D, F]


class FastInputs(NamedTuple):
    """What one scan reads, per token."""

    query: Tensor  # [B, H, L, D]
    key: Tensor  # [B, H, L, D]
    value: Tensor  # [B, H, L, D]
    lr: Tensor  # [B, H, L, 3] inner learning rates of gate, down, up
    momentum: Tensor  # [B, H, L] in 0..1

    @property
    def length(self) -> int:
        """L."""
        return self.query.shape[2]

    def cut(self, start: int, stop: int) -> FastInputs:
        """Tokens start..stop-1."""
        return FastInputs(*(x[:, :, start:stop] for x in self))


class FastState(NamedTuple):
    """Everything a TTT layer's fast weights carry from token to token; its size never changes."""

    weights: FastWeights  # in use now
    master: FastWeights | None  # pre-norm: the unnormalised sum of all writes
    momentum: FastWeights | None  # the last write before orthogonalisation; None: no write yet
    gradient: FastWeights | None  # sum over the open chunk; None: the chunk is empty
    beta_sum: Tensor | None  # [B, H] sum of the open chunk's momentum factors
    num_tokens: int  # tokens in the open chunk, 0..chunk_size


class BorderState(NamedTuple):
    """A `FastState` for work of fixed shape: how many tokens still fit the open chunk is known to the device only.

    Its chunk is open and, with momentum, an earlier one was written: every tensor has its final shape.
    """

    weights: FastWeights
    master: FastWeights | None
    momentum: FastWeights | None
    gradient: FastWeights
    beta_sum: Tensor
    border: Tensor  # int64 scalar: tokens of the next piece that still belong to the open chunk


class BriefState(NamedTuple):
    """A `FastState` for at most `left` more tokens, such as a question and its answer.

    Sums that none of them would write are not kept, nor what only a write reads.
    """

    weights: FastWeights
    master: FastWeights | None
    momentum: FastWeights | None
    gradient: FastWeights | None
    beta_sum: Tensor | None
    num_tokens: int
    left: int


def initial_state(initial: FastWeights, batch: int) -> FastState:
    """The state before the first token: the trained weights ([H, ...] each) for every row."""
    weights = FastWeights(*(w.expand(batch, *w.shape) for w in initial))
    return FastState(weights, None, None, None, None, 0)


def apply(weights: FastWeights, query: Tensor) -> Tensor:
    """f(query): [B, H, L, D] -> [B, H, L, D] in the query's dtype (eq. 2 of the paper)."""
    if _trains_on_gpu(query):
        from spatial_ttt.model.kernels import network

        return network.apply(*weights, query)
    if _streams_on_gpu(query):
        return factors.read(weights, query)
    return plain_apply(weights, query)


def plain_apply(weights: FastWeights, query: Tensor) -> Tensor:
    """The same in torch operations."""
    gate, up, down = (w.to(query.dtype) for w in weights)
    return (F.silu(query @ gate.mT) * (query @ up.mT)) @ down.mT


def gradient(weights: FastWeights, inputs: FastInputs) -> FastWeights:
    """Negative gradient of -sum_t lr_t <f(k_t), v_t>, in closed form and in the weights' precision."""
    if _trains_on_gpu(inputs.key):
        from spatial_ttt.model.kernels import network

        return FastWeights(*network.gradient(*weights, inputs.key, inputs.value, inputs.lr))
    if _streams_on_gpu(inputs.key):
        return FastWeights(*factors.write(weights, inputs.key, inputs.value, inputs.lr))
    return plain_gradient(weights, inputs)


def plain_gradient(weights: FastWeights, inputs: FastInputs) -> FastWeights:
    """The same in torch operations."""
    key, value = inputs.key, inputs.value
    dtype, exact = key.dtype, weights.gate.dtype
    gate, up, down = (w.to(dtype) for w in weights)
    a, u, e = key @ gate.mT, key @ up.mT, value @ down  # [B, H, L, F]
    d_gate, d_up, d_down = write_factors(a, u, e, inputs.lr, exact)
    return FastWeights(
        gate=(d_gate.mT @ key).to(exact),
        up=(d_up.mT @ key).to(exact),
        down=(value.mT @ d_down).to(exact),
    )


def write_factors(
    a: Tensor, u: Tensor, e: Tensor, lr: Tensor, exact: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """What each token adds to the gradients of gate, up and down, besides its key or value.

    a = gate k, u = up k, e = down' v, [B, H, L, F] each; computed in `exact`, returned in a's dtype.
    """
    dtype = a.dtype
    a, u, e, lr = a.to(exact), u.to(exact), e.to(exact), lr.to(exact)
    lr_gate, lr_down, lr_up = lr[..., 0:1], lr[..., 1:2], lr[..., 2:3]
    s = torch.sigmoid(a)
    silu = a * s
    d_gate = e * u * s * (1 + a * (1 - s)) * lr_gate
    return d_gate.to(dtype), (e * silu * lr_up).to(dtype), (silu * u * lr_down).to(dtype)


def _streams_on_gpu(x: Tensor) -> bool:
    """The kernels without a backward may run."""
    if torch.is_grad_enabled():
        return False
    return resolve_backend("factors", x.device, x.dtype)[0] == "triton"


def _trains_on_gpu(x: Tensor) -> bool:
    """The kernels with a backward of their own may run."""
    return torch.is_grad_enabled() and resolve_backend("network", x.device, x.dtype)[0] == "triton"


def normalise_rows(weights: Tensor, target: Tensor) -> Tensor:
    """Give every row of `weights` [..., R, C] the norm `target` [..., R, 1]."""
    return weights / (weights.norm(dim=-1, keepdim=True) + ROW_EPS) * target


def commit(state: FastState, initial: FastWeights, config: TTTConfig) -> FastState:
    """Write the open chunk into the weights: momentum, Newton-Schulz, add, restore the row norms.

    `initial` holds the trained weights [H, ...]; their row norms are kept for ever. The only place
    where fast weights change.
    """
    if state.gradient is None or state.beta_sum is None:
        raise SessionError(
            "the open chunk has no sums to write: its state was made for reading only"
        )
    beta = None
    if config.use_momentum and state.momentum is not None:
        beta = (state.beta_sum / state.num_tokens)[..., None, None]
    base = state.weights if state.master is None else state.master
    past = state.momentum if beta is not None else None
    if base.gate.shape == base.down.shape:  # one pass over all three
        before = None if past is None else torch.stack(past)
        rows = torch.stack(state.gradient), before, torch.stack(base)
        found = _write(*rows, torch.stack(initial)[:, None], beta, config)
        parts = [tensor.unbind() for tensor in found]
    else:
        each = zip(state.gradient, past or (None,) * 3, base, initial, strict=True)
        parts = list(zip(*(_write(*row, beta, config) for row in each), strict=True))
    weights, total, write = (FastWeights(*part) for part in parts)
    master = total if config.norm_placement == "pre" else None
    return FastState(weights, master, write if config.use_momentum else None, None, None, 0)


def _write(
    gradient: Tensor,
    momentum: Tensor | None,
    base: Tensor,
    initial: Tensor,
    beta: Tensor | None,
    config: TTTConfig,
) -> tuple[Tensor, Tensor, Tensor]:
    """One kind of matrix, or all three stacked: the new weights, the unnormalised sum, the write itself."""
    write = gradient if beta is None or momentum is None else gradient + beta * momentum
    delta = newton_schulz(write, config.newton_schulz_dtype) if config.use_muon else write
    total = base + delta
    return normalise_rows(total, initial.norm(dim=-1, keepdim=True)), total, write


def accumulate(state: FastState, inputs: FastInputs) -> FastState:
    """Add tokens to the open chunk's sums; the caller keeps them within the chunk."""
    return add(state, gradient(state.weights, inputs), inputs)


def read_and_accumulate(state: FastState, inputs: FastInputs) -> tuple[Tensor, FastState]:
    """What all queries read with the weights in use, and the open chunk's sums with these tokens."""
    if _streams_on_gpu(inputs.query):
        out, grad = factors.read_and_write(state.weights, *inputs[:4])
        return out, add(state, FastWeights(*grad), inputs)
    return apply(state.weights, inputs.query), accumulate(state, inputs)


def add(state: FastState, grad: FastWeights, inputs: FastInputs) -> FastState:
    """Add the gradients of tokens, and their momentum factors, to the open chunk's sums."""
    beta = inputs.momentum.to(grad.gate.dtype).sum(-1)  # [B, H]
    if state.gradient is not None and state.beta_sum is not None:
        grad = FastWeights(*(a + b for a, b in zip(state.gradient, grad, strict=True)))
        beta = state.beta_sum + beta
    return state._replace(gradient=grad, beta_sum=beta, num_tokens=state.num_tokens + inputs.length)


def border_scan(
    state: BorderState, inputs: FastInputs, initial: FastWeights, config: TTTConfig
) -> tuple[Tensor, BorderState]:
    """A scan whose shapes do not depend on where the open chunk ends; at most a chunk of tokens.

    Everything is done for both sides of the border and masked: twice the reads, but no ragged pieces.
    Where the border lies beyond the piece nothing is written.
    """
    weights, master, momentum, sums, beta_sum, border = state
    is_before = torch.arange(inputs.length, device=border.device) < border
    crosses = border < inputs.length
    opened = FastState(weights, master, momentum, sums, beta_sum, 0)
    out, filled = read_and_accumulate(opened, masked(inputs, is_before))
    written = commit(filled._replace(num_tokens=config.chunk_size), initial, config)
    later, fresh = read_and_accumulate(written, masked(inputs, ~is_before))

    def pick(new: Any, old: Any) -> Any:
        if new is None or isinstance(new, Tensor):
            return None if new is None else torch.where(crosses, new, old)
        return FastWeights(*(torch.where(crosses, a, b) for a, b in zip(new, old, strict=True)))

    five = (pick(a, b) for a, b in zip(fresh[:5], filled[:5], strict=True))
    return torch.where(is_before[:, None], out, later), BorderState._make((*five, border))


def masked(inputs: FastInputs, mask: Tensor) -> FastInputs:
    """All tokens read, those of the mask [L] write."""
    return inputs._replace(lr=inputs.lr * mask[:, None], momentum=inputs.momentum * mask)


def scan(
    state: FastState | BorderState | BriefState,
    inputs: FastInputs,
    initial: FastWeights,
    config: TTTConfig,
    *,
    keep_state: bool = True,
    keep_newton_schulz: bool = False,
) -> tuple[Tensor, Any]:
    """Read with every query and write every full chunk once a token after it has come.

    Returns outputs [B, H, L, D] and the state after the last token. `keep_state=False` says that
    nobody will read that state, so the sums of the last open chunk are not made.
    `keep_newton_schulz` is for `kernels.wide_scan`, the same results; no other scan heeds it.
    """
    if isinstance(state, BorderState):
        return border_scan(state, inputs, initial, config)
    if isinstance(state, BriefState):
        return brief_scan(state, inputs, initial, config)
    opened = (
        config.chunk_size - state.num_tokens if state.num_tokens else 0
    )  # tokens that fill the open chunk
    if inputs.length - opened <= config.chunk_size:
        return plain_scan(state, inputs, initial, config, keep_state=keep_state)
    from spatial_ttt.model.kernels import scan as narrow
    from spatial_ttt.model.kernels import wide_scan

    is_wide = wide_scan.problem(state, inputs, config) is None
    problem = None if is_wide else narrow.problem(state, inputs)
    backend, _ = resolve_backend("scan", inputs.query.device, inputs.query.dtype, problem)
    if backend == "reference":
        return plain_scan(state, inputs, initial, config, keep_state=keep_state)
    outputs = []
    if state.num_tokens:
        if opened:
            out, state = plain_scan(state, inputs.cut(0, opened), initial, config)
            outputs.append(out)
        state = commit(state, initial, config)
    given = (state, inputs.cut(opened, inputs.length), initial, config, keep_state)
    out, state, rest = (
        wide_scan.scan(*given, keep_newton_schulz) if is_wide else narrow.scan(*given)
    )
    outputs.append(out)
    if keep_state:
        state = accumulate(state, rest)
    return torch.cat(outputs, dim=2) if len(outputs) > 1 else out, state


def plain_scan(
    state: FastState,
    inputs: FastInputs,
    initial: FastWeights,
    config: TTTConfig,
    *,
    keep_state: bool = True,
) -> tuple[Tensor, FastState]:
    """The scan in torch operations, chunk by chunk: for every device, dtype, width and piece."""
    return _chunks(state, inputs, initial, config, None if keep_state else inputs.length)


def brief_scan(
    state: BriefState, inputs: FastInputs, initial: FastWeights, config: TTTConfig
) -> tuple[Tensor, BriefState]:
    """The scan of a continuation whose end is known; raises SessionError for tokens beyond it."""
    return continued(
        state, inputs, lambda opened, left: _chunks(opened, inputs, initial, config, left)
    )


def continued(
    state: BriefState,
    inputs: FastInputs,
    chunks: Callable[[FastState, int], tuple[Tensor, FastState]],
) -> tuple[Tensor, BriefState]:
    """Go on with a continuation by `chunks`(state, tokens left); raises SessionError for tokens beyond its end."""
    if inputs.length > state.left:
        raise SessionError(
            f"a continuation of at most {state.left} more tokens got {inputs.length}; begin it with more"
        )
    out, last = chunks(FastState(*state[:6]), state.left)
    return out, BriefState(*last, state.left - inputs.length)


def _chunks(
    state: FastState, inputs: FastInputs, initial: FastWeights, config: TTTConfig, left: int | None
) -> tuple[Tensor, FastState]:
    """Chunk by chunk; of `left` tokens at most that come from here on (None: any number) these are the first."""
    outputs = []
    start = 0
    while start < inputs.length:
        if state.num_tokens == config.chunk_size:
            state = commit(state, initial, config)
        stop = min(inputs.length, start + config.chunk_size - state.num_tokens)
        piece = inputs.cut(start, stop)
        if left is not None and state.num_tokens + left - start <= config.chunk_size:
            # No token comes after this chunk: nothing will be written.
            outputs.append(apply(state.weights, piece.query))
            count = state.num_tokens + piece.length
            state = FastState(state.weights, None, None, None, None, count)
        else:
            out, state = read_and_accumulate(state, piece)
            outputs.append(out)
        start = stop
    return torch.cat(outputs, dim=2) if len(outputs) > 1 else outputs[0], state


def read_branches(
    state: FastState | BriefState,
    inputs: FastInputs,
    initial: FastWeights,
    config: TTTConfig,
    branches: int,
) -> Tensor:
    """Outputs of `branches` independent continuations of one past, laid side by side along L.

    Equal to a scan of each on a fork, as long as no continuation fills the open chunk: then none of
    them writes. Raises ConfigError where one would.
    """
    if state.num_tokens == config.chunk_size:
        state = commit(FastState(*state[:6]), initial, config)
    length = inputs.length // branches
    if isinstance(branches, UnevenBranches):
        length = branches.longest
    if state.num_tokens + length > config.chunk_size:
        raise ConfigError(
            f"a branch of {length} tokens after {state.num_tokens} of {config.chunk_size} tokens of a chunk would "
            f"write the fast weights; shorten the branch, or run it on its own fork"
        )
    return apply(state.weights, inputs.query)
