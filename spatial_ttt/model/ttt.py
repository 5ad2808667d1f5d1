"""The attention of a TTT layer: a window beside fast weights.

It holds Qwen3-VL's projections under Qwen3-VL's names, adds what its branch needs and computes
y = o_proj( window attention + gated fast weights ) from shared q, k, v (paper, section 3).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spatial_ttt.model import beside, fast_desk, fast_stream
from spatial_ttt.model import fast_weights as fw
from spatial_ttt.model.anchor import Attention
from spatial_ttt.model.attention import attend, keep_window, last
from spatial_ttt.model.configuration import TTTConfig, state_dtype
from spatial_ttt.model.fast_parameters import DepthwiseKernel, FastParameters
from spatial_ttt.model.holding import Plan, plan
from spatial_ttt.model.kernels import (
    attention,
    commit,
    cudnn_attention,
    mixing,
    resolve_backend,
    shaping,
    trained_heads,
)
from spatial_ttt.model.kernels.attention import Past
from spatial_ttt.model.layers import RMSNorm, derived, linear_together, rotate, taken
from spatial_ttt.model.layout import join, split
from spatial_ttt.model.state import (
    Context,
    Held,
    Projected,
    Raw,
    Tokens,
    Trailing,
    TTTState,
    cat_tokens,
    own,
    slice_tokens,
)
from spatial_ttt.model.stream_convolution import convolve_released, kernel_of

UNIT_EPS = 1e-5
TTT_NORM_EPS = 1e-5


class TTTAttention(Attention):
    """Sliding-window attention beside fast weights; both read the same q, k, v."""

    def __init__(self, text: Any, config: TTTConfig) -> None:
        super().__init__(text)
        self.config = config
        self.memory_is_on = True  # training begins without the branch (see train.annealing)
        self.keeps_newton_schulz = False  # see engine.keep_newton_schulz
        width, heads = text.hidden_size, config.num_fast_heads
        self.fast_dim = width // heads
        self.lr_offset = math.log(math.expm1(config.base_lr))
        self.fast_weights = FastParameters(heads, self.fast_dim, config.low_rank)
        self.q_scale = nn.Parameter(torch.ones(width))
        self.k_scale = nn.Parameter(torch.ones(width))
        self.q_offset = nn.Parameter(torch.zeros(width))
        self.k_offset = nn.Parameter(torch.zeros(width))
        self.lr_proj = nn.Linear(width, 3 * heads)
        self.momentum_proj = nn.Linear(width, heads) if config.use_momentum else None
        self.ttt_scale_proj = nn.Linear(width, heads) if config.use_gate else None
        self.ttt_norm = RMSNorm(self.fast_dim, TTT_NORM_EPS)
        if config.convolution != "none":
            centre = 1 if config.convolution == "centred" else 2
            self.conv_q, self.conv_k, self.conv_v = (
                DepthwiseKernel(width, centre) for _ in range(3)
            )

    def forward(
        self,
        x: Tensor | list[Tensor],
        tokens: Tokens | list[Tokens],
        state: TTTState | None,
        branches: int = 1,
        keep_state: bool = True,
    ) -> tuple[Tokens, Tensor, TTTState]:
        """One piece of a stream: x [B, L, D] is `tokens` after the input norm.

        Returns the tokens that are now determined, the attention output [B, released, D] for them, and the new
        state, which holds the other tokens back. Both may be given away (see `layers.taken`).
        """
        x, tokens = taken(x), taken(tokens)
        state = state or self.empty_state(x.shape[0])
        if not self.memory_is_on:
            mixed, state = self.attend_window(x, tokens.rope, state, branches, keep_state)
            return tokens, mixed, state
        rates, past = linear_together(self, x, self.rate_layers), state.held
        if past is None:
            raw = Raw(self.project(x), rates)
        else:
            tokens = cat_tokens(past.tokens, tokens, join(past.tokens.layout, tokens.layout))
            qkv = self.project(x, past.raw.qkv)
            raw = Raw(qkv, torch.cat((past.raw.rates, rates), dim=1))
            del qkv
        del x, rates
        grid = state.context.grid if state.context else None
        todo = plan(tokens.layout, grid, self.config.convolution)
        projected = self.shape(raw, tokens.rope, _room_for(state.window))
        front, back = split(tokens.layout, todo.released)
        held = None
        if back:
            rest = slice_tokens(tokens, todo.released, tokens.length, back)
            held = Held(rest, Raw(*(t[:, todo.released :] for t in raw)))
            # Captured work copies what it holds back to a place of its own.
            is_lent = torch.is_grad_enabled() or isinstance(state.window, Past)
            held = held if is_lent else own(held)
        ready = slice_tokens(tokens, 0, todo.released, front)
        del raw, tokens  # large, and the convolution makes more
        fast, context = self.convolve(projected.fast, todo, state.context)
        state = state._replace(held=held, context=context)
        if not todo.released:
            return ready, ready.hidden, state
        box = [projected.first(todo.released, fast)]
        del projected, fast  # the end of a video releases many tokens at once
        mixed, state = self.mix(
            box.pop(), ready.rope, state, branches=branches, keep_state=keep_state
        )
        return ready, mixed, state

    def attend_window(
        self, x: Tensor, rope: Tensor, state: TTTState, branches: int = 1, keep_state: bool = True
    ) -> tuple[Tensor, TTTState]:
        """The layer without its branch, x [B, L, D] -> [B, L, D]: every token is determined at once."""
        q, k, v = self.heads(self.project(x), rope)
        out, window = self._through_window(q, k, v, state.window, branches, keep_state)
        return self.o_proj(out), state._replace(window=window)

    def _through_window(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        window: Any,
        branches: int,
        keep_state: bool,
        room: int = 0,
        behind: int = 0,
    ) -> tuple[Tensor, Any]:
        """Attend to the window and to the new tokens themselves -> [B, L, H * Dh] and the window moved on.

        Without `keep_state` it may stay where it was. `room` and `behind` as in `Projected`.
        """
        size = self.config.window_size
        if isinstance(window, Past) and attention.applies(q):
            # Of captured work: the device knows where it lies.
            attention.append(k, v, window)
            return attention.attend(q, window, window=size), window
        kept: Any
        if isinstance(window, Past):
            (keys, values), kept = attention.plain_append(k, v, window), window
        elif isinstance(window, Trailing):
            (keys, values), kept = window.joined(k, v, size)
        else:
            keys, values = keep_window(window, k, v, room)
            kept = last(keys, values, size) if keep_state else window
        out = attend(
            q,
            keys,
            values,
            window=size,
            branches=branches,
            implementation=self.implementation,
            behind=behind if room else 0,
        )
        return out.transpose(1, 2).flatten(2), kept

    @property
    def rate_layers(self) -> tuple[nn.Linear, ...]:
        """What makes the learning rates, the momentum and the gate of a token, as far as they are used."""
        layers = (self.lr_proj, self.momentum_proj, self.ttt_scale_proj)
        return tuple(layer for layer in layers if layer is not None)

    def shape(self, raw: Raw, rope: Tensor, room: int = 0) -> Projected:
        """Everything a token brings along that depends on itself and its position alone.

        `room`: see `Projected`; where no kernel makes it, the result has none.
        """
        if shaping.applies(raw.qkv):
            norms, scales, length = self.head_norms, self._scales(raw.qkv.dtype), rope.shape[1]
            zeros = cudnn_attention.padding(raw.qkv, length, self.head_dim) if room else 0
            q, k, v, fast = shaping.heads(
                raw.qkv, rope, norms, self.num_kv_heads, scales, room, zeros
            )
            assert fast is not None
            q, k, v = (x[:, :, :length] for x in (q, k, v))
            lr, momentum, gate = self.rates(raw.rates)
            return Projected(q, k, v, fast, lr, momentum, gate, room, zeros)
        if trained_heads.applies(raw.qkv, self.q_norm.weight):
            norms, scales = self.head_norms, self._scales(raw.qkv.dtype)
            q, k, v, fast = trained_heads.heads(raw.qkv, rope, norms, self.num_kv_heads, scales)
            assert fast is not None
            lr, momentum, gate = trained_heads.rates(raw.rates, self.lr_offset, *self._rate_heads)
            return Projected(q, k, v, fast, lr, momentum, gate)
        return self.plain_shape(raw, rope)

    def plain_shape(self, raw: Raw, rope: Tensor) -> Projected:
        """`shape` in torch operations."""
        query, key, value = self.normed(raw.qkv)
        q, k, v = (t.transpose(1, 2) for t in (query, key, value))
        groups = self.num_heads // self.num_kv_heads
        key, value = (t.repeat_interleave(groups, dim=2).flatten(2) for t in (key, value))
        query = query.flatten(2)
        fast = torch.cat(
            (query * self.q_scale + self.q_offset, key * self.k_scale + self.k_offset, value),
            dim=-1,
        )
        q, k = rotate(q, rope), rotate(k, rope)
        lr, momentum, gate = self.rates(raw.rates)
        return Projected(q, k, v, fast, lr, momentum, gate)

    def _scales(self, dtype: torch.dtype) -> Tensor:
        """Scale and offset of queries, then of keys, [4, D]."""
        parts = (self.q_scale, self.q_offset, self.k_scale, self.k_offset)
        return derived(self, "scales", parts, lambda: torch.stack(parts).to(dtype))

    def rates(self, raw: Tensor) -> tuple[Tensor, ...]:
        """Learning rates [B, L, 3 * heads], momentum and gate [B, L, heads] from what `rate_layers` say."""
        count, has = self._rate_heads
        if shaping.applies(raw):
            return shaping.rates(raw, self.lr_offset, count, has)
        lr = F.softplus(raw[..., : 3 * count].to(state_dtype(raw.dtype)) + self.lr_offset)
        ones = raw.new_ones(*raw.shape[:2], count)
        momentum = torch.sigmoid(raw[..., 3 * count : 4 * count]) if has[0] else ones
        return lr, momentum, F.silu(raw[..., -count:]) if has[1] else ones

    @property
    def _rate_heads(self) -> tuple[int, tuple[bool, bool]]:
        """Fast heads, and whether tokens have a momentum and a gate."""
        has = self.momentum_proj is not None, self.ttt_scale_proj is not None
        return self.config.num_fast_heads, has

    def convolve(
        self, fast: Tensor, plan: Plan, context: Context | None
    ) -> tuple[Tensor, Context | None]:
        """Convolve the slots a plan releases; fast [B, queue, 3 D] -> [B, released, 3 D]."""
        if not plan.stretches:
            return fast[:, : plan.released], context if plan.keeps_context else None
        weights = (self.conv_q.weight, self.conv_k.weight, self.conv_v.weight)
        kernel = derived(self, "convolution", weights, lambda: kernel_of(weights))
        return convolve_released(fast, plan, context, kernel, self.config.convolution == "centred")

    def mix(
        self,
        tokens: Projected,
        rope: Tensor,
        state: TTTState,
        *,
        branches: int = 1,
        keep_state: bool = True,
    ) -> tuple[Tensor, TTTState]:
        """Window attention plus gated fast weights of determined tokens, through o_proj.

        `tokens.fast` is convolved already. Returns [B, L, D] and the state with its window and fast
        weights advanced (`held` and `context` are the caller's).
        """
        gate, box, length = tokens.gate, [tokens], tokens.query.shape[2]
        is_beside, rule = beside.applies(rope, length), self.rule(tokens.fast.dtype)
        is_plain = branches == 1 and keep_state
        made: fast_desk.Room | fw.FastWeights | None = None
        if is_beside and is_plain and fast_desk.applies(tokens.fast, state.fast, rule):
            made = fast_desk.room(cast(fw.FastState, state.fast), length, rule)
        elif is_beside and torch.is_grad_enabled():
            made = fw.FastWeights(*(w.view_as(w) for w in self.fast_weights.initial()))

        def attend() -> tuple[Tensor, Any]:
            where = tokens.room, tokens.behind
            return self._through_window(*tokens[:3], state.window, branches, keep_state, *where)

        def write() -> tuple[Tensor, Any]:
            fast = state.fast
            return self._read_and_write(box.pop(), rope, fast, branches, keep_state, made)

        if is_beside:
            (attended, window), (read, fast) = beside.both(
                attend,
                write,
                rope.device,
                reads=(tokens.fast, tokens.lr, tokens.momentum, rope, state.fast, made),
            )
            del tokens
        else:
            attended, window = attend()
            del tokens  # large: gone as soon as the fast branch has read them
            read, fast = write()
        out = self._gated_sum(attended, read, gate)
        return self.o_proj(out), state._replace(fast=fast, window=window)

    def _read_and_write(
        self,
        tokens: Projected,
        rope: Tensor,
        state: fw.FastState | fw.BriefState,
        branches: int,
        keep_state: bool,
        made: fast_desk.Room | fw.FastWeights | None = None,
    ) -> tuple[Tensor, Any]:
        """What queries read [B, heads, L, D of a head], and the state after.

        Going aside, `made` was made before: room at the desk, or with gradients the weights before the first write.
        """
        rule = self.rule(tokens.fast.dtype)
        if isinstance(made, fast_desk.Room):
            lr, momentum = _rates_of_heads(tokens)
            coming = fast_desk.Unshaped(tokens.fast, rope, lr, momentum, UNIT_EPS)
            past = cast(fw.FastState, state)
            return fast_desk.scan(past, coming, self._row_norms(), rule, made)
        inputs = self.fast_inputs(tokens, rope)
        del tokens
        if branches == 1 and commit.applies(inputs.query, rule, state.weights.gate.shape):
            return fast_stream.scan(state, inputs, self._row_norms(), rule, keep_state=keep_state)
        initial = made or self.fast_weights.initial()
        if branches == 1:
            keeps = self.keeps_newton_schulz
            how = {"keep_state": keep_state, "keep_newton_schulz": keeps}
            return fw.scan(state, inputs, initial, rule, **how)
        return fw.read_branches(state, inputs, initial, rule, branches), state

    def _row_norms(self) -> Tensor:
        """Norms of the trained fast weights' rows, [heads, 3, F] float32."""

        def make() -> Tensor:
            return torch.stack([w.norm(dim=-1) for w in self.fast_weights.initial()], dim=1)

        return derived(self, "norms", tuple(self.fast_weights.parameters()), make)

    def rule(self, dtype: torch.dtype) -> TTTConfig:
        """The configured rule, with Newton-Schulz never less precise than activations of `dtype`.

        A bfloat16 iteration in a float32 model would turn the last bit of a sum, which depends on how
        the stream was cut, into different answers.
        """
        if dtype.itemsize < 4 or self.config.newton_schulz_dtype == "float32":
            return self.config
        return replace(self.config, newton_schulz_dtype="float32")

    def _gated_sum(self, attended: Tensor, read: Tensor, gate: Tensor) -> Tensor:
        """attended [B, L, D] + norm(read [B, heads, L, D of a head]) * gate [B, L, heads]."""
        backend, _ = resolve_backend("mixing", read.device, read.dtype)
        if backend == "triton":
            return mixing.combine(attended, read, self.ttt_norm.weight, gate, self.ttt_norm.eps)
        gated = self.ttt_norm(read) * _heads(gate, 1)
        return attended + gated.transpose(1, 2).flatten(2)

    def fast_inputs(self, tokens: Projected, rope: Tensor) -> fw.FastInputs:
        """The branch's per-head q, k, v: silu, unit length, rotation (in this order)."""
        backend, _ = resolve_backend("mixing", rope.device, tokens.fast.dtype)
        lr, momentum = _rates_of_heads(tokens)
        if backend == "triton":
            return fw.FastInputs(
                *mixing.prepare(tokens.fast, rope, self.fast_dim, UNIT_EPS), lr, momentum
            )
        query, key, value = (_heads(F.silu(t), self.fast_dim) for t in tokens.fast.chunk(3, dim=-1))
        return fw.FastInputs(
            rotate(_unit(query), rope), rotate(_unit(key), rope), value, lr, momentum
        )

    def empty_state(self, batch: int) -> TTTState:
        """The state before the first token of `batch` rows."""
        return TTTState(fw.initial_state(self.fast_weights.initial(), batch), None, None, None)


def _room_for(window: Any) -> int:
    """Tokens of a window that is joined with what comes after it, without gradients."""
    is_joined = isinstance(window, tuple) and not isinstance(window, Past | Trailing)
    return window[0].shape[2] if is_joined and not torch.is_grad_enabled() else 0


def _rates_of_heads(tokens: Projected) -> tuple[Tensor, Tensor]:
    """Learning rates [B, heads, L, 3] and momentum [B, heads, L]."""
    return tokens.lr.unflatten(-1, (-1, 3)).transpose(1, 2), tokens.momentum.transpose(1, 2)


def _heads(x: Tensor, dim: int) -> Tensor:
    """[B, L, heads * dim] -> [B, heads, L, dim]."""
    return x.unflatten(-1, (-1, dim)).transpose(1, 2)


def _unit(x: Tensor) -> Tensor:
    exact = x.to(state_dtype(x.dtype))
    return (exact / (exact.norm(dim=-1, keepdim=True) + UNIT_EPS)).to(x.dtype)
