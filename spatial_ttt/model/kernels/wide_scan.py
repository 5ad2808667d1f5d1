"""The fast-weight scan of wide heads as one autograd function: products by the library, all else in few launches.

The three matrices of a head lie side by side, [B, H, 3, D, D] (gate, up, down): gate and up share their products, and
a write treats all alike. Per write the sum and the write itself are saved in float32 and the new weights rounded;
everything else is made again, Newton-Schulz's steps unless the caller keeps them. In plain torch a write and its
gradient are 140 launches, here they are nine, or 36 where steps are kept.

    forward     for every chunk: read; then gradient, + beta * momentum, Newton-Schulz, + base, row norms
    backward    the same in reverse: gradients of the weights of a chunk -> of its last write -> of that chunk's tokens
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spatial_ttt.model.configuration import TTTConfig
from spatial_ttt.model.fast_weights import ROW_EPS, FastInputs, FastState, FastWeights
from spatial_ttt.model.kernels import interpreting
from spatial_ttt.model.kernels.commit import add_product
from spatial_ttt.model.kernels.scan import SIZES, Rule, betas, rule_of, state_after

TILE = 128
"""Widths are multiples of it, except in the interpreter."""


def problem(state: FastState, inputs: FastInputs, config: TTTConfig) -> str | None:
    """Why this scan cannot run here (None: it can)."""
    hidden, size = state.weights.gate.shape[-2:]
    if not torch.is_grad_enabled():
        return "it is for training"
    if size in SIZES:
        return "such narrow heads have a kernel of their own"
    if hidden != size or size % (16 if interpreting() else TILE):
        return f"it takes square fast weights of a multiple of {TILE} channels, got {hidden}x{size}"
    if state.weights.gate.dtype != torch.float32:
        return f"it keeps fast weights in float32, got {state.weights.gate.dtype}"
    if not inputs.query.dtype == inputs.key.dtype == inputs.value.dtype:
        return "query, key and value differ in dtype"
    is_half = inputs.query.dtype == torch.bfloat16 and config.newton_schulz_dtype == "bfloat16"
    return None if is_half or interpreting() else "it multiplies in bfloat16"


def scan(
    state: FastState,
    inputs: FastInputs,
    initial: FastWeights,
    config: TTTConfig,
    keep_state: bool,
    keep_steps: bool = False,
) -> tuple[Tensor, FastState, FastInputs]:
    """As `kernels.scan.scan`: it starts at a chunk's border; without `keep_state` the state comes back as it was.

    `keep_steps` keeps Newton-Schulz's for the backward pass: 15 numbers in its precision for every one of a write.
    """
    rule = rule_of(state, config, keep_state)
    beta, rest = betas(inputs, config.chunk_size)
    norms = torch.stack(tuple(initial), dim=1).norm(dim=-1)  # [H, 3, D]
    first = torch.stack(state.weights, dim=2)
    is_apart = rule.is_pre_norm and state.master is not None
    master = torch.stack(state.master, dim=2) if is_apart and state.master else None
    momentum = torch.stack(state.momentum, dim=2) if rule.has_momentum and state.momentum else None
    out, total, write = _WideScan.apply(
        inputs.query,
        inputs.key,
        inputs.value,
        inputs.lr,
        beta,
        norms,
        first,
        master,
        momentum,
        rule,
        keep_steps,
    )
    if not keep_state:
        return out, state, rest
    return out, state_after(total, write, norms, rule), rest


@dataclass
class _Saved:
    """What a backward pass reads; stacked tensors have one entry a write, the weights one more."""

    query: Tensor
    key: Tensor
    value: Tensor
    lr: Tensor
    beta: Tensor  # [n, B, H]
    norms: Tensor  # [H, 3, D]
    lows: Tensor  # [n + 1, B, H, 3, D, D] in the products' precision
    totals: Tensor  # [n, B, H, 3, D, D] float32, as the others
    writes: Tensor
    squares: Tensor  # [n, matrices, blocks]
    momentum: Tensor | None
    steps: Tensor | None  # [n, 3, steps, B, H, 3, D, D]: see `kept_steps_triton`

    def chunk(self, x: Tensor, number: int, size: int) -> Tensor:
        """The tokens of a chunk of [B, H, L, ...]."""
        return x[:, :, number * size : (number + 1) * size]


class _WideScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        lr: Tensor,
        beta: Tensor,
        norms: Tensor,
        first: Tensor,
        master: Tensor | None,
        momentum: Tensor | None,
        rule: Rule,
        keep_steps: bool,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        num, shape = beta.shape[-1], first.shape
        like = first.contiguous()
        saved = _Saved(
            query.contiguous(),
            key.contiguous(),
            value.contiguous(),
            lr.to(torch.float32).contiguous(),
            beta=beta.to(torch.float32).movedim(-1, 0).contiguous(),
            norms=norms.contiguous(),
            lows=like.new_empty(num + 1, *shape, dtype=query.dtype),
            totals=like.new_empty(num, *shape),
            writes=like.new_empty(num, *shape),
            squares=like.new_empty(0),  # found on the way
            momentum=None if momentum is None else momentum.contiguous(),
            steps=_room(num, like, rule) if keep_steps and rule.use_muon else None,
        )
        out = _forward(saved, like, None if master is None else master.contiguous(), rule)
        ctx.save_for_backward(*vars(saved).values())
        ctx.rule, ctx.dtypes, ctx.has_master = rule, (lr.dtype, beta.dtype), master is not None
        ctx.set_materialize_grads(False)
        if not rule.keep_state:
            return out, None, None
        return out, saved.totals[-1].clone(), saved.writes[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_out: Tensor | None, d_total: Tensor | None, d_write: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        saved = _Saved(*ctx.saved_tensors)
        d_out = torch.zeros_like(saved.query) if d_out is None else d_out.contiguous()
        work = _Backward(saved, ctx.rule, d_out)
        work.run(d_total, d_write)
        d_first, d_master = work.d_weights, None
        if ctx.has_master:
            d_master = work.d_total
        elif ctx.rule.is_pre_norm:  # the weights were the first sum, too
            assert work.d_total is not None
            d_first = d_first + work.d_total
        lr_dtype, beta_dtype = ctx.dtypes
        d_momentum = None
        if saved.momentum is not None:
            d_momentum = work.d_write * saved.beta[0, :, :, None, None, None]
        d_beta = work.d_beta.sum((-2, -1)).movedim(0, -1).to(beta_dtype)
        d_norms = work.d_norms.sum((0, 1))
        tokens = (work.d_query, work.d_key, work.d_value, work.d_lr.to(lr_dtype))
        return *tokens, d_beta, d_norms, d_first, d_master, d_momentum, None, None


def _forward(saved: _Saved, first: Tensor, master: Tensor | None, rule: Rule) -> Tensor:
    """Fill what is saved; the outputs [B, H, L, D]."""
    from spatial_ttt.model.kernels import commit_triton, network_triton, wide_scan_triton

    size, num = rule.chunk_size, len(saved.totals)
    if rule.use_muon and saved.steps is None:
        # What is captured once is captured here, not among a backward pass.
        wide_scan_triton.backward_products(first, rule.polish_dtype)
    saved.lows[0] = first
    base = first if master is None else master
    gradient = torch.empty_like(first)
    out = torch.empty_like(saved.query)
    squares = []
    for n in range(num + 1):
        low = saved.lows[n]
        both, down = low[:, :, :2].flatten(2, 3), low[:, :, 2]
        hidden = network_triton.hidden(_product(saved.chunk(saved.query, n, size), both.mT))
        _put(hidden, down.mT, saved.chunk(out, n, size))
        if n == num:
            break
        key, value, lr = (saved.chunk(x, n, size) for x in (saved.key, saved.value, saved.lr))
        rows, rows_down = network_triton.rows(_product(key, both.mT), _product(value, down), lr)
        add_product(rows.mT, key, gradient[:, :, :2].flatten(2, 3), False)
        add_product(value.mT, rows_down, gradient[:, :, 2], False)
        past = saved.writes[n - 1] if n else saved.momentum
        past = past if rule.use_momentum else None
        write, total = saved.writes[n], saved.totals[n]
        before = None if past is None else _places(past)
        squares.append(commit_triton.begin(_places(gradient), before, saved.beta[n], 1, write))
        delta = _orthogonalise(saved, n, squares[n], rule) if rule.use_muon else write
        weights = first if n else torch.empty_like(first)  # `first` itself is the caller's
        first = weights
        places = (total, weights, saved.lows[n + 1])
        commit_triton.finish(_places(base), delta, saved.norms, places, ROW_EPS)
        base = total if rule.is_pre_norm else weights
    saved.squares = torch.stack(squares)
    return out


def _orthogonalise(saved: _Saved, n: int, squares: Tensor, rule: Rule) -> Tensor:
    """Newton-Schulz of a write; its steps are kept where there is room."""
    from spatial_ttt.model.kernels import kept_steps_triton, wide_scan_triton

    if saved.steps is None:
        return wide_scan_triton.orthogonalise(saved.writes[n], squares, rule.polish_dtype)
    return kept_steps_triton.orthogonalise(saved.writes[n], squares, saved.steps[n])


class _Backward:
    """A backward pass under way: gradients of all tokens, and of the weights, sum and write it has come to."""

    def __init__(self, saved: _Saved, rule: Rule, d_out: Tensor) -> None:
        self.saved, self.rule, self.d_out = saved, rule, d_out
        tokens = (saved.query, saved.key, saved.value, saved.lr)
        self.d_query, self.d_key, self.d_value, self.d_lr = (torch.empty_like(x) for x in tokens)
        written = len(saved.totals) * rule.chunk_size
        for rest in (self.d_key, self.d_value, self.d_lr):
            rest[:, :, written:].zero_()  # the scan does not write the last tokens
        shape = saved.totals.shape
        self.d_beta = saved.totals.new_zeros(*shape[:4], _blocks(saved.totals))
        self.d_norms = saved.totals.new_empty(*shape[:5])
        self.d_weights = torch.empty_like(saved.totals[0])
        self.d_write = torch.empty_like(self.d_weights)
        self.low = torch.empty_like(saved.lows[0])  # d_write, rounded
        self.d_total: Tensor | None = None  # pre-norm: of the sum, which the next write begins with

    def run(self, d_total: Tensor | None, d_write: Tensor | None) -> None:
        """From the last chunk to the first; the gradients of the last sum and write came from outside."""
        num = len(self.saved.totals)
        self.d_total = d_total
        for n in range(num, -1, -1):
            continues = (
                n < num and not self.rule.is_pre_norm
            )  # in d_weights lies what went past the write
            self.read(n, continues)
            if n < num:
                self.add(n)
            if n:
                self.write(n - 1, d_write)
        if self.saved.momentum is not None:
            blocks = self.d_beta.shape[-1]
            found = (self.d_write * self.saved.momentum).flatten(-2).sum(-1)
            self.d_beta[0] = (found / blocks)[..., None]

    def read(self, n: int, continues: bool) -> None:
        """The outputs of a chunk."""
        from spatial_ttt.model.kernels import network_triton

        saved, size = self.saved, self.rule.chunk_size
        both, down = self.weights(n)
        query, grad = saved.chunk(saved.query, n, size), saved.chunk(self.d_out, n, size)
        inner = _product(query, both.mT), _product(grad, down)
        hidden, d_both = network_triton.hidden_backward(*inner)
        add_product(d_both.mT, query, self.d_weights[:, :, :2].flatten(2, 3), continues)
        add_product(grad.mT, hidden, self.d_weights[:, :, 2], continues)
        _put(d_both, both, saved.chunk(self.d_query, n, size))

    def add(self, n: int) -> None:
        """What the tokens of a chunk added to the write."""
        from spatial_ttt.model.kernels import network_triton

        saved, size = self.saved, self.rule.chunk_size
        both, down = self.weights(n)
        d_rows, d_down = self.low[:, :, :2].flatten(2, 3), self.low[:, :, 2]
        key, value, lr = (saved.chunk(x, n, size) for x in (saved.key, saved.value, saved.lr))
        found = network_triton.rows_backward(
            (_product(key, both.mT), _product(value, down), lr),
            (_product(key, d_rows.mT), _product(value, d_down)),
            saved.chunk(self.d_lr, n, size),
        )
        for_key, for_value = (saved.chunk(x, n, size) for x in (self.d_key, self.d_value))
        _put(found.rows, d_rows, for_key)
        _put(found.d_both, both, for_key, is_sum=True)
        _put(found.rows_down, d_down.mT, for_value)
        _put(found.d_error, down.mT, for_value, is_sum=True)
        add_product(found.d_both.mT, key, self.d_weights[:, :, :2].flatten(2, 3), True)
        add_product(value.mT, found.d_error, self.d_weights[:, :, 2], True)

    def write(self, n: int, d_last: Tensor | None) -> None:
        """Through a write: from the weights it made to the write itself and what it was added to."""
        from spatial_ttt.model.kernels import kept_steps_triton
        from spatial_ttt.model.kernels import wide_scan_triton as kernels

        saved, rule, is_last = self.saved, self.rule, n + 1 == len(self.saved.totals)
        later = None
        if not is_last and rule.use_momentum:
            later = kernels.Later(self.d_write, saved.beta[n + 1], self.d_beta[n + 1])
        elif is_last and d_last is not None:
            later = kernels.Later(d_last.contiguous(), None, None)
        more = None if self.d_total is None else self.d_total.contiguous()
        of_total = self.d_weights
        if rule.is_pre_norm:
            of_total = torch.empty_like(self.d_weights) if is_last or more is None else more
        products = None
        if saved.steps is not None:
            products = kept_steps_triton.backward_products(saved.steps[n])
        elif rule.use_muon:
            products = kernels.backward_products(of_total, rule.polish_dtype)
            kernels.scale(saved.writes[n], saved.squares[n], products.inputs[0])
        low = products.inputs[-1] if products else None
        out = (of_total, low, self.d_norms[n])
        kernels.norm_backward(saved.totals[n], saved.norms, self.d_weights, more, out, ROW_EPS)
        self.d_total = of_total if rule.is_pre_norm else None
        grad, squares = of_total, None
        if products:
            squares, grad = saved.squares[n], products.run()
        kernels.write_backward(grad, saved.writes[n], squares, later, (self.d_write, self.low))

    def weights(self, n: int) -> tuple[Tensor, Tensor]:
        """Gate above up [B, H, 2 D, D], and down [B, H, D, D], rounded."""
        low = self.saved.lows[n]
        return low[:, :, :2].flatten(2, 3), low[:, :, 2]


def _room(num: int, like: Tensor, rule: Rule) -> Tensor:
    """Where the steps of so many writes [B, H, 3, D, D] are kept."""
    from spatial_ttt.model.kernels import kept_steps_triton

    return kept_steps_triton.room(num, like.shape, rule.polish_dtype, like.device)


def _blocks(stacked: Tensor) -> int:
    from spatial_ttt.model.kernels import commit_triton

    return commit_triton.parts_of(stacked)


def _places(stacked: Tensor) -> Any:
    from spatial_ttt.model.kernels.commit_triton import Places

    gate, up, down = stacked.unbind(2)
    return Places(gate, up, down, 3 * stacked.shape[-1] * stacked.shape[-2])


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b of [B, H, N, K] and [B, H, K, M]."""
    return torch.bmm(a.flatten(0, 1), b.flatten(0, 1)).unflatten(0, a.shape[:2])


def _put(a: Tensor, b: Tensor, out: Tensor, *, is_sum: bool = False) -> None:
    """out = a @ b, or added to it: [B, H, N, M], tokens as they lie."""
    a, b, out = a.flatten(0, 1), b.flatten(0, 1), out.flatten(0, 1)
    if is_sum:
        torch.baddbmm(out, a, b, out=out)
    else:
        torch.bmm(a, b, out=out)
