"""What stands between the products of the fast network, one pass over memory each, in float32.

A row is one token of one head; `both` holds its gate and up products side by side.
"""
# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# Kernels are Triton's language, which has no types of Python's.

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from spatial_ttt.model.kernels.sizes import cdiv, next_power_of_2

_TILE = 2048  # entries of a program's tile


class RowGradients(NamedTuple):
    """What `rows_backward` returns: the rows themselves again, and gradients."""

    rows: Tensor  # [..., L, 2 F]
    rows_down: Tensor  # [..., L, F]
    d_both: Tensor  # [..., L, 2 F]
    d_error: Tensor  # [..., L, F]
    d_lr: Tensor  # [..., L, 3]


@triton.jit
def _load_both(both, row, channel, inside, size):
    at = row[:, None] * (2 * size) + channel[None, :]
    a = tl.load(both + at, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(both + at + size, mask=inside, other=0.0).to(tl.float32)
    return a, u, tl.sigmoid(a)


@triton.jit
def _store_both(both, row, channel, inside, size, first, second):
    at = row[:, None] * (2 * size) + channel[None, :]
    tl.store(both + at, first.to(both.dtype.element_ty), mask=inside)
    tl.store(both + at + size, second.to(both.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["count"])
def _hidden(both, out, count, size, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, CHANNELS)
    inside = (row < count)[:, None] & (channel < size)[None, :]
    a, u, s = _load_both(both, row, channel, inside, size)
    at = row[:, None] * size + channel[None, :]
    tl.store(out + at, (a * s * u).to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["count"])
def _hidden_backward(
    both, grad, out, d_both, count, size, ROWS: tl.constexpr, CHANNELS: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, CHANNELS)
    inside = (row < count)[:, None] & (channel < size)[None, :]
    a, u, s = _load_both(both, row, channel, inside, size)
    at = row[:, None] * size + channel[None, :]
    d = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, (a * s * u).to(out.dtype.element_ty), mask=inside)
    _store_both(d_both, row, channel, inside, size, d * u * (s * (1.0 + a * (1.0 - s))), d * a * s)


@triton.jit
def _rate_places(row, length, step):
    """Where the learning rates of a row lie: `length` rows side by side, then a `step` to the next."""
    return (row // length) * step + (row % length) * 3


@triton.jit(do_not_specialize=["count", "length", "lr_step"])
def _rows(
    both, error, lr, rows, rows_down, count, size, length, lr_step, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, CHANNELS)
    inside = (row < count)[:, None] & (channel < size)[None, :]
    a, u, s = _load_both(both, row, channel, inside, size)
    at = row[:, None] * size + channel[None, :]
    e = tl.load(error + at, mask=inside, other=0.0).to(tl.float32)
    lr += _rate_places(row, length, lr_step)
    lr_gate = tl.load(lr, mask=row < count, other=0.0)[:, None]
    lr_down = tl.load(lr + 1, mask=row < count, other=0.0)[:, None]
    lr_up = tl.load(lr + 2, mask=row < count, other=0.0)[:, None]
    silu = a * s
    slope = s * (1.0 + a * (1.0 - s))
    _store_both(rows, row, channel, inside, size, e * u * slope * lr_gate, e * silu * lr_up)
    tl.store(rows_down + at, (silu * u * lr_down).to(rows_down.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["count", "length", "lr_step", "to_step"])
def _rows_backward(
    both, error, lr, d_rows, d_rows_down, rows, rows_down, d_both, d_error, d_lr, count, size, length, lr_step, to_step,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, CHANNELS)
    real = row < count
    inside = real[:, None] & (channel < size)[None, :]
    a, u, s = _load_both(both, row, channel, inside, size)
    at = row[:, None] * size + channel[None, :]
    e = tl.load(error + at, mask=inside, other=0.0).to(tl.float32)
    lr += _rate_places(row, length, lr_step)
    lr_gate = tl.load(lr, mask=real, other=0.0)[:, None]
    lr_down = tl.load(lr + 1, mask=real, other=0.0)[:, None]
    lr_up = tl.load(lr + 2, mask=real, other=0.0)[:, None]
    silu = a * s
    slope = s * (1.0 + a * (1.0 - s))
    _store_both(rows, row, channel, inside, size, e * u * slope * lr_gate, e * silu * lr_up)
    tl.store(rows_down + at, (silu * u * lr_down).to(rows_down.dtype.element_ty), mask=inside)
    both_at = row[:, None] * (2 * size) + channel[None, :]
    r_gate = tl.load(d_rows + both_at, mask=inside, other=0.0).to(tl.float32)
    r_up = tl.load(d_rows + both_at + size, mask=inside, other=0.0).to(tl.float32)
    r_down = tl.load(d_rows_down + at, mask=inside, other=0.0).to(tl.float32)
    d_lr += _rate_places(row, length, to_step)
    tl.store(d_lr, tl.sum(r_gate * e * u * slope, axis=1), mask=real)
    tl.store(d_lr + 1, tl.sum(r_down * silu * u, axis=1), mask=real)
    tl.store(d_lr + 2, tl.sum(r_up * e * silu, axis=1), mask=real)
    r_gate *= lr_gate
    r_up *= lr_up
    r_down *= lr_down
    bend = s * (1.0 - s) * (2.0 + a * (1.0 - 2.0 * s))
    d_a = r_gate * e * u * bend + (r_up * e + r_down * u) * slope
    _store_both(d_both, row, channel, inside, size, d_a, r_gate * e * slope + r_down * silu)
    d_e = r_gate * u * slope + r_up * silu
    tl.store(d_error + at, d_e.to(d_error.dtype.element_ty), mask=inside)


def _launch(both: Tensor) -> tuple[tuple[int], int, int, dict[str, int]]:
    """Grid, rows, F and block sizes."""
    size = both.shape[-1] // 2
    count = both.numel() // (2 * size)
    channels = next_power_of_2(size)
    block = max(1, min(32, _TILE // channels))
    blocks = {"ROWS": block, "CHANNELS": channels, "num_warps": 4}
    return (cdiv(count, block),), count, size, blocks


def hidden(both: Tensor) -> Tensor:
    """[..., L, 2 F] -> silu(first half) * second half [..., L, F]."""
    both = both.contiguous()
    grid, count, size, blocks = _launch(both)
    out = both.new_empty(*both.shape[:-1], size)
    _hidden[grid](both, out, count, size, **blocks)
    return out


def hidden_backward(both: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The hidden units again, and the gradient of `both` from theirs."""
    both, grad = both.contiguous(), grad.contiguous()
    grid, count, size, blocks = _launch(both)
    out, d_both = torch.empty_like(grad), torch.empty_like(both)
    _hidden_backward[grid](both, grad, out, d_both, count, size, **blocks)
    return out, d_both


def rows(both: Tensor, error: Tensor, lr: Tensor) -> tuple[Tensor, Tensor]:
    """Per token, what times its key gives the gradients of gate and up, and times its value that of down.

    `error` [..., L, F] is the value seen through down; lr [..., L, 3].
    """
    both, error, lr = both.contiguous(), error.contiguous(), _rates(lr)
    grid, count, size, blocks = _launch(both)
    out, out_down = torch.empty_like(both), torch.empty_like(error)
    _rows[grid](both, error, lr, out, out_down, count, size, *_steps(lr), **blocks)
    return out, out_down


def rows_backward(
    inputs: tuple[Tensor, Tensor, Tensor],
    grads: tuple[Tensor, Tensor],
    d_lr: Tensor | None = None,
) -> RowGradients:
    """The rows again, and gradients of `both`, `error` and lr from those of the rows.

    The last is put into `d_lr` if given: float32, tokens side by side, rows of tokens equally far apart.
    """
    both, error, lr = inputs[0].contiguous(), inputs[1].contiguous(), _rates(inputs[2])
    d_rows, d_rows_down = (x.contiguous() for x in grads)
    grid, count, size, blocks = _launch(both)
    d_lr = torch.empty(lr.shape, dtype=lr.dtype, device=lr.device) if d_lr is None else d_lr
    out, out_down, d_both, d_error = (torch.empty_like(x) for x in (both, error, both, error))
    found = RowGradients(out, out_down, d_both, d_error, d_lr)
    _rows_backward[grid](
        both, error, lr, d_rows, d_rows_down, *found, count, size, *_steps(lr), _steps(d_lr)[1], **blocks
    )  # fmt: skip
    return found


def _rates(lr: Tensor) -> Tensor:
    """Learning rates [..., L, 3] in float32, as `_steps` needs them: a piece of all tokens as it lies."""
    if lr.dtype == torch.float32 and lr.stride()[-2:] == (3, 1):
        outer = range(lr.dim() - 3)
        if all(lr.stride(i) == lr.stride(i + 1) * lr.shape[i + 1] for i in outer):
            return lr
    return lr.to(torch.float32).contiguous()


def _steps(lr: Tensor) -> tuple[int, int]:
    """Tokens side by side, and how far the next row of tokens is."""
    return lr.shape[-2], lr.stride(-3) if lr.dim() > 2 else 0
