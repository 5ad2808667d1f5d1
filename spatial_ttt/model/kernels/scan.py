"""The whole fast-weight scan of narrow heads as one autograd function.

Saves the inputs, one [3, D, D] block per write and matrix sum, and one per write; makes the rest again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spatial_ttt.model.configuration import TTTConfig
from spatial_ttt.model.fast_weights import FastInputs, FastState, FastWeights

SIZES = (32, 64)


@dataclass(frozen=True)
class Rule:
    """What the kernels need of a configuration and a start."""

    chunk_size: int
    use_muon: bool
    use_momentum: bool
    is_pre_norm: bool
    polish_dtype: torch.dtype
    is_fresh: bool  # the first weights are taken as they are, not normalised again
    has_momentum: bool  # there was a write before
    keep_state: bool  # the last slots are wanted too


def problem(state: FastState, inputs: FastInputs) -> str | None:
    """Why the kernels cannot run this scan (None: they can)."""
    hidden, size = state.weights.gate.shape[-2:]
    if hidden != size or size not in SIZES:
        return f"it takes square fast weights of {' or '.join(map(str, SIZES))} channels, got {hidden}x{size}"
    if state.weights.gate.dtype != torch.float32:
        return f"it keeps fast weights in float32, got {state.weights.gate.dtype}"
    if not inputs.query.dtype == inputs.key.dtype == inputs.value.dtype:
        return "query, key and value differ in dtype"
    return None


def scan(
    state: FastState, inputs: FastInputs, initial: FastWeights, config: TTTConfig, keep_state: bool
) -> tuple[Tensor, FastState, FastInputs]:
    """Outputs [B, H, L, D], the state after the last write, and the tokens of the open chunk that follow it.

    The scan starts at a chunk's border. Without `keep_state` the state comes back as it went in.
    """
    rule = rule_of(state, config, keep_state)
    beta, rest = betas(inputs, config.chunk_size)
    norms = torch.stack([w.norm(dim=-1) for w in initial], dim=1)  # [H, 3, D]
    first = torch.stack(state.weights if state.master is None else state.master, dim=2)
    momentum = torch.stack(state.momentum, dim=2) if rule.has_momentum and state.momentum else None
    out, total, write = _Scan.apply(
        inputs.query, inputs.key, inputs.value, inputs.lr, beta, norms, first, momentum, rule
    )
    if not keep_state:
        return out, state, rest
    return out, state_after(total, write, norms, rule), rest


def rule_of(state: FastState, config: TTTConfig, keep_state: bool) -> Rule:
    """The rule of a scan that starts from this state."""
    return Rule(
        chunk_size=config.chunk_size,
        use_muon=config.use_muon,
        use_momentum=config.use_momentum,
        is_pre_norm=config.norm_placement == "pre",
        polish_dtype=getattr(torch, config.newton_schulz_dtype),
        is_fresh=state.master is None,
        has_momentum=config.use_momentum and state.momentum is not None,
        keep_state=keep_state,
    )


def betas(inputs: FastInputs, size: int) -> tuple[Tensor, FastInputs]:
    """The momentum of every write [B, H, n], and the tokens of the open chunk that follows the last."""
    writes = (inputs.length - 1) // size
    written = inputs.momentum[:, :, : writes * size].unflatten(-1, (writes, size))
    return written.to(torch.float32).mean(-1), inputs.cut(writes * size, inputs.length)


def state_after(total: Tensor, write: Tensor, norms: Tensor, rule: Rule) -> FastState:
    """The state after the last write from its sum and the write itself, [B, H, 3, D, D]; norms [H, 3, D]."""
    from spatial_ttt.model.fast_weights import normalise_rows

    weights = normalise_rows(total, norms[:, :, :, None])
    return FastState(
        FastWeights(*weights.unbind(2)),
        FastWeights(*total.unbind(2)) if rule.is_pre_norm else None,
        FastWeights(*write.unbind(2)) if rule.use_momentum else None,
        None,
        None,
        0,
    )


class _Scan(torch.autograd.Function):
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
        momentum: Tensor | None,
        rule: Rule,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        from spatial_ttt.model.kernels import scan_launch

        tokens = tuple(x.contiguous() for x in (query, key, value, lr.to(torch.float32)))
        beta, norms = beta.contiguous(), norms.contiguous()
        out, totals, writes = scan_launch.forward((*tokens, beta, norms), first, momentum, rule)
        ctx.save_for_backward(*tokens, beta, norms, totals, writes)
        ctx.rule, ctx.lr_dtype = rule, lr.dtype
        ctx.set_materialize_grads(False)
        if not rule.keep_state:
            return out, None, None
        return out, totals[:, :, -1].clone(), writes[:, :, -1].clone()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_out: Tensor | None, d_total: Tensor | None, d_write: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        from spatial_ttt.model.kernels import scan_launch

        saved = ctx.saved_tensors
        grads, d_momentum = scan_launch.backward(saved, (d_out, d_total, d_write), ctx.rule)
        d_query, d_key, d_value, d_lr, *others = grads
        return d_query, d_key, d_value, d_lr.to(ctx.lr_dtype), *others, d_momentum, None
