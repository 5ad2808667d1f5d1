"""Wide fast weights of a stream on a GPU: their sums and writes in few launches, where no gradients are asked for.

The three matrices of a head lie side by side, [B, H, 3, D, D]: the products with gate and up are one, a write treats
all alike, and `FastWeights` are views. Sums are added up where they lie.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from spatial_ttt.model.kernels import captured, interpreting, resolve_backend

WIDEST_SMALL = 128
"""Narrower heads have kernels that keep a matrix on chip (`newton_schulz_triton`, `scan_triton`)."""


def applies(query: Tensor, rule: Any, shape: torch.Size) -> bool:
    """These kernels may run: no gradients, half precision on a GPU, wide square matrices [..., D, D], bfloat16 Muon."""
    wide = shape[-1] == shape[-2] and shape[-1] > WIDEST_SMALL and shape[-1] % WIDEST_SMALL == 0
    if torch.is_grad_enabled() or not wide or interpreting() or query.dtype.itemsize != 2:
        return False
    is_muon = rule.use_muon and rule.newton_schulz_dtype == "bfloat16"
    return is_muon and resolve_backend("commit", query.device, query.dtype)[0] == "triton"


def room(like: Tensor, dtype: torch.dtype) -> Tensor:
    """Fresh memory for matrices like these [B, H, D, D], of three kinds: [B, H, 3, D, D]."""
    return like.new_empty(*like.shape[:2], 3, *like.shape[2:], dtype=dtype)


def joined(parts: Any) -> Tensor:
    """Three kinds of matrices [B, H, D, D] as one [B, H, 3, D, D]: a view where they lie so, else a copy."""
    gate, up, down = parts
    size = gate.shape[-1] * gate.shape[-2]
    batch, heads = gate.shape[:2]
    step = gate.stride(0) if heads == 1 else gate.stride(1)
    inner = (gate.shape[-1], 1)
    lie = gate.stride()[2:] == up.stride()[2:] == down.stride()[2:] == inner and step == 3 * size
    lie &= gate.stride() == up.stride() == down.stride()
    lie &= batch == 1 or gate.stride(0) == heads * 3 * size
    apart = size * gate.element_size()
    lie &= up.data_ptr() - gate.data_ptr() == down.data_ptr() - up.data_ptr() == apart
    if lie and gate.untyped_storage().data_ptr() == down.untyped_storage().data_ptr():
        shape = (batch, heads, 3, *gate.shape[2:])
        return gate.as_strided(shape, (heads * 3 * size, 3 * size, size, *inner))
    return torch.stack(tuple(parts), dim=2)


def rounded(weights: Any, dtype: torch.dtype) -> Tensor:
    """The weights as products read them, [B, H, 3, D, D]; those that are rounded already as they lie."""
    return joined(weights).to(dtype)


def read(low: Tensor, query: Tensor, out: Tensor | None = None) -> Tensor:
    """down [ silu(gate q) * (up q) ]: query [B, H, L, D] -> [B, H, L, D], into `out` (may be `query`)."""
    out = torch.empty_like(query) if out is None else out
    read_outer(low, read_inner(low, query), out)
    return out


def read_inner(low: Tensor, query: Tensor, out: Tensor | None = None) -> Tensor:
    """silu(gate q) * (up q) [B, H, L, D], into `out`, which is dense and may be `query`."""
    from spatial_ttt.model.kernels import shaping

    both = _product(query, _both(low).mT).unflatten(0, query.shape[:2])
    return shaping.swiglu_halves(both, out)


def read_outer(low: Tensor, inner: Tensor, out: Tensor) -> None:
    """down inner: [B, H, L, D] -> [B, H, L, D], into `out`, which is dense in its last axis."""
    torch.bmm(inner.flatten(0, 1), low[:, :, 2].mT.flatten(0, 1), out=out.flatten(0, 1))


def add(low: Tensor, tokens: Any, past: Tensor | None, out: Tensor | None = None) -> Tensor:
    """What tokens add to the gradients [B, H, 3, D, D] float32, on top of `past`; into `out`, which may be `past`."""
    from spatial_ttt.model.kernels import factors_triton as kernels

    shape = tokens.key.shape[:2]
    both = _product(tokens.key, _both(low).mT).unflatten(0, shape)
    error = _product(tokens.value, low[:, :, 2]).unflatten(0, shape)
    both, down = kernels.write_factors(both, error, tokens.lr)
    out = room(low[:, :, 0], torch.float32) if out is None else out
    if past is not None and past.data_ptr() != out.data_ptr():
        out.copy_(past)
    add_product(both.mT, tokens.key, _both(out), past is not None)
    add_product(tokens.value.mT, down, out[:, :, 2], past is not None)
    return out


def add_momentum(momentum: Tensor, past: Tensor | None, out: Tensor | None = None) -> Tensor:
    """The sum of momentum [B, H, L] over its tokens, and of `past` [B, H], float32; into `out`, which may be `past`."""
    from spatial_ttt.model.kernels import commit_triton

    if out is None:
        out = momentum.new_empty(momentum.shape[:2], dtype=torch.float32)
    return commit_triton.add_momentum(momentum, past, out)


def _both(stacked: Tensor) -> Tensor:
    """Gate above up, [B, H, 2 D, D]."""
    return stacked[:, :, :2].flatten(2, 3)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b of [B, H, ...] matrices, [B * H, N, M]."""
    return torch.bmm(a.flatten(0, 1), b.flatten(0, 1))


def add_product(a: Tensor, b: Tensor, out: Tensor, has_past: bool) -> None:
    """out = a @ b, or added to it, in float32 [B, H, N, M]; half-precision operands are not rounded again."""
    a, b, out = a.flatten(0, 1), b.flatten(0, 1), out.flatten(0, 1)
    if a.device.type == "cpu" or a.dtype == torch.float32:
        found = torch.bmm(a.float(), b.float())
        out.copy_(found.add_(out) if has_past else found)
    elif has_past:
        torch.baddbmm(out, a, b, out_dtype=torch.float32, out=out)
    else:
        torch.bmm(a, b, out_dtype=torch.float32, out=out)


class Into(NamedTuple):
    """Where a write puts what it makes [B, H, 3, D, D]; None: fresh memory."""

    dtype: torch.dtype  # of the rounded weights
    eps: float  # added to the norm of a row
    write: Tensor | None = None
    weights: Tensor | None = None
    total: Tensor | None = None
    low: Tensor | None = None


def write(
    sums: Tensor,
    momentum: Any,
    beta_sum: Tensor,
    base: Any,
    rule: Any,
    norms: Tensor,
    into: Into,
    *,
    replayed: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """`fast_weights.commit`: the write itself, the new weights, the unnormalised sum (pre-norm), the weights rounded.

    [B, H, 3, D, D] each, put `into` the given places; they may be those of momentum and base, and that of the write
    those of the sums and, if it is not wanted itself, of the weights. `norms` [H, 3, D] are of the trained weights'
    rows, `momentum` and `base` three kinds of [B, H, D, D]. Newton-Schulz may be `replayed` as one launch, which takes
    memory of its own for good.
    """
    from spatial_ttt.model.kernels import commit_triton as kernels

    exact = torch.float32
    done = room(base[0], exact) if into.write is None else into.write
    weights = room(base[0], exact) if into.weights is None else into.weights
    low = room(base[0], into.dtype) if into.low is None else into.low
    total = into.total
    if rule.norm_placement == "pre" and total is None:
        total = room(base[0], exact)
    past = _places(momentum) if rule.use_momentum and momentum is not None else None
    begun = _places(sums.unbind(2))
    work = getattr(torch, rule.newton_schulz_dtype)
    if replayed:
        products = captured.ready(kernels.newton_schulz_products, done, work)
    else:
        products = kernels.newton_schulz_products(done.shape, work, done.device)
    kernels.begin(begun, past, beta_sum.contiguous(), rule.chunk_size, done, products.inputs)
    delta = products.run()
    kernels.finish(_places(base), delta, norms, (total, weights, low), into.eps)
    return done, weights, total, low


def _places(parts: Any) -> Any:
    from spatial_ttt.model.kernels.commit_triton import Places

    gate, up, down = (part if _is_even(part) else part.contiguous() for part in parts)
    if not gate.stride() == up.stride() == down.stride():
        gate, up, down = (part.contiguous() for part in (gate, up, down))
    return Places(gate, up, down, gate.stride(0) if gate.shape[1] == 1 else gate.stride(1))


def _is_even(x: Tensor) -> bool:
    """Matrices [B, H, D, D] are whole and equally far apart."""
    batch, heads = x.shape[:2]
    whole = x.stride(3) == 1 and x.stride(2) == x.shape[3]
    return whole and (batch == 1 or heads == 1 or x.stride(0) == heads * x.stride(1))
