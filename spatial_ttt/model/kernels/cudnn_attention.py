"""Causal attention and sliding windows as graphs of cuDNN's own: of training, with their gradients, and of streams.

torch reaches cuDNN for whole sequences alone. cuDNN's own interface (nvidia-cudnn-frontend, the extra `cuda`) has
windows too: on a Hopper GPU both passes take half of FlashAttention-2's time, and the windows of long pieces of a
stream three quarters of our own kernel's (docs/performance.md). Every length must be planned, for some 40 ms, so
sequences are padded to few lengths.
"""

from __future__ import annotations

import logging
import threading
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from spatial_ttt.errors import ConfigError
from spatial_ttt.model.kernels import VARIABLE, requested_backend

log = logging.getLogger(__name__)

LENGTHS = 64
"""Sequences are padded to multiples of it. Padding stands at the end, where no token before it looks."""

LEAST_QUERIES = 2048
"""Shorter sequences are left to FlashAttention-2: trainers do not pad them, and no time of theirs has been measured."""

STREAM_LENGTHS = 128
"""Pieces of streams are read in multiples of it: what stands behind them in memory is read, too."""

LEAST_OF_STREAM = 9216
"""Shorter pieces of streams are left to our own kernel: the first and the last of a stream have a length in each
layer."""

ALIGNMENT = 8  # numbers of half precision: 16 bytes


def applies(q: Tensor, k: Tensor) -> bool:
    """q [B, H, L, Dh] over as many keys, with gradients wanted; the reason is logged once."""
    if q.device.type != "cuda" or not torch.is_grad_enabled() or requested_backend() == "reference":
        return False
    fits = q.shape[2] == k.shape[2] and q.shape[2] >= LEAST_QUERIES
    return fits and _applies(q.device, q.dtype, q.shape[3])


def padding(x: Tensor, length: int, dim: int) -> int:
    """How many tokens to make behind a piece of a stream, so that `attend_window` may read it; 0 if it won't."""
    return -length % STREAM_LENGTHS if _streams(x, length, dim) else 0


def reads_window(q: Tensor, k: Tensor, window: int, behind: int) -> bool:
    """`attend_window` may read q [B, H, L, Dh] without gradients and k: a full window and the queries' own keys.

    `behind` them must stand enough tokens.
    """
    length = q.shape[2]
    fits = k.shape[2] == window + length and behind >= -length % STREAM_LENGTHS
    return fits and _streams(q, length, q.shape[3]) and _is_laid(q) and _is_laid(k)


def _streams(x: Tensor, length: int, dim: int) -> bool:
    if x.device.type != "cuda" or torch.is_grad_enabled() or requested_backend() == "reference":
        return False
    return length >= LEAST_OF_STREAM and _applies(x.device, x.dtype, dim)


@lru_cache(maxsize=16)
def _applies(device: torch.device, dtype: torch.dtype, dim: int) -> bool:
    found = problem(torch.cuda.get_device_capability(device), dtype, dim, is_installed())
    log.info("long sequences: %s", f"not by cuDNN, {found}" if found else "cuDNN's graphs")
    return found is None


def problem(
    capability: tuple[int, int], dtype: torch.dtype, dim: int, installed: bool
) -> str | None:
    """What keeps cuDNN's graphs from heads of `dim` numbers on such a device (None: nothing)."""
    if dtype not in (torch.bfloat16, torch.float16):
        return f"it needs half precision, not {str(dtype).removeprefix('torch.')}"
    if capability < (9, 0):
        return "it is faster from compute capability 9.0 on only"
    if dim % ALIGNMENT or dim > 128:
        return f"it takes heads of a multiple of {ALIGNMENT} up to 128, not of {dim}"
    return None if installed else "nvidia-cudnn-frontend is not installed (extra `cuda`)"


@lru_cache(maxsize=1)
def is_installed() -> bool:
    """The interface is there; cuDNN itself comes with torch."""
    return find_spec("cudnn") is not None


def attend(q: Tensor, k: Tensor, v: Tensor, window: int = 0) -> Tensor:
    """q [B, H, L, Dh] over k, v [B, Hkv, L, Dh], causally -> [B, H, L, Dh], tokens side by side; differentiable.

    `window` counts the keys that a query sees, its own included (0: all before it).
    """
    out: Tensor = _Attention.apply(q, k, v, window)
    return out


def attend_window(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """q [B, H, L, Dh] over `window` keys before them and their own, k, v [B, Hkv, W + L, Dh] -> [B, H, L, Dh].

    For what `reads_window` allows; without gradients, tokens of the result side by side.
    """
    batch, heads, length, dim = q.shape
    spare = -length % STREAM_LENGTHS
    out = q.new_empty(batch, length + spare, heads, dim).transpose(1, 2)
    inputs = [_with_behind(x, spare) for x in (q, k, v)]
    _run(_Kind(False, q.dtype, q.device, window, False, follows=True), (*inputs, out))
    return out[:, :, :length]


def _with_behind(x: Tensor, spare: int) -> Tensor:
    """A view of x [B, H, L, Dh] that ends so many tokens later, in the same memory."""
    shape = (*x.shape[:2], x.shape[2] + spare, x.shape[3])
    last = sum((size - 1) * step for size, step in zip(shape, x.stride(), strict=True))
    end = (x.storage_offset() + last + 1) * x.element_size()
    assert end <= x.untyped_storage().nbytes(), f"no {spare} tokens stand behind {tuple(x.shape)}"
    return x.as_strided(shape, x.stride(), x.storage_offset())


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        inputs = [_laid(x) for x in (q, k, v)]
        batch, heads, length, dim = inputs[0].shape
        out = q.new_empty(batch, length, heads, dim).transpose(1, 2)
        sums = q.new_empty(batch, heads, length, 1, dtype=torch.float32)
        _run(_Kind(False, q.dtype, q.device, window, False), (*inputs, out, sums))
        ctx.save_for_backward(q, k, v, out, sums)
        ctx.window = window
        return out[:, :, : q.shape[2]]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, sums = ctx.saved_tensors
        inputs = [_laid(x) for x in (q, k, v, out, grad)]
        made = [x.new_empty(x.shape) for x in inputs[:3]]  # dense, as compiled heads want them
        is_exact = torch.are_deterministic_algorithms_enabled()
        kind = _Kind(True, q.dtype, q.device, ctx.window, is_exact)
        _run(kind, (*inputs, sums, *made))
        return (*(x[:, :, : q.shape[2]] for x in made), None)


def _laid(x: Tensor) -> Tensor:
    """x as cuDNN reads it: padded, a head's numbers side by side, everything at multiples of 16 bytes."""
    spare = -x.shape[2] % LENGTHS
    if spare:
        return F.pad(x.transpose(1, 2), (0, 0, 0, 0, 0, spare)).transpose(1, 2)
    return x if _is_laid(x) else x.contiguous()


def _is_laid(x: Tensor) -> bool:
    is_aligned = not any(step % ALIGNMENT for step in x.stride()[:3]) and x.data_ptr() % 16 == 0
    return x.stride(3) == 1 and is_aligned and 0 not in x.stride()


class _Kind(NamedTuple):
    """What a graph depends on besides sizes and places."""

    is_gradient: bool
    dtype: torch.dtype
    device: torch.device
    window: int
    is_deterministic: bool  # of gradients
    follows: bool = False  # keys begin with a full window before the first query's own


class _Plan(NamedTuple):
    graph: Any
    workspace: int  # bytes


Layout = tuple[tuple[int, ...], tuple[int, ...]]
"""Shape and strides of a tensor."""


def _run(kind: _Kind, tensors: tuple[Tensor, ...]) -> None:
    """Read the first of them, write the rest, on the current stream."""
    layouts = tuple((tuple(x.shape), x.stride()) for x in tensors)
    with torch.cuda.device(kind.device):
        plan = _plan(kind, layouts)
        space = tensors[0].new_empty(max(1, plan.workspace), dtype=torch.uint8)
        plan.graph.execute(dict(enumerate(tensors)), space, handle=_handle(kind.device))


_own = threading.local()  # a handle works for one thread at a time


def _handle(device: torch.device) -> Any:
    """This thread's handle of a device, on its current stream."""
    import cudnn

    handles: dict[torch.device, list[Any]] = _own.__dict__.setdefault("handles", {})
    if device not in handles:
        handles[device] = [cudnn.create_handle(), -1]
    known, stream = handles[device], torch.cuda.current_stream(device).cuda_stream
    if known[1] != stream:
        cudnn.set_stream(known[0], stream)
        known[1] = stream
    return known[0]


@lru_cache(maxsize=512)
def _plan(kind: _Kind, layouts: tuple[Layout, ...]) -> _Plan:
    import cudnn

    try:
        graph = cudnn.pygraph(
            io_data_type=_names()[kind.dtype],
            intermediate_data_type=cudnn.data_type.FLOAT,
            compute_data_type=cudnn.data_type.FLOAT,
            handle=_handle(kind.device),
        )
        _describe(graph, kind, layouts)
        graph.build([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
    except (cudnn.cudnnGraphNotSupportedError, RuntimeError) as error:
        versions = f"cuDNN {cudnn.backend_version_string()}, interface {cudnn.__version__}"
        raise ConfigError(
            f"{versions}: attention of {layouts[0][0]} over {layouts[1][0]} is refused; install the "
            f"nvidia-cudnn-frontend of constraints.txt, or set {VARIABLE}=reference to do without"
        ) from error
    return _Plan(graph, graph.get_workspace_size())


def _describe(graph: Any, kind: _Kind, layouts: tuple[Layout, ...]) -> None:
    """Say what is computed; a tensor's name is its number in `layouts`."""
    import cudnn

    names = ("q", "k", "v", "o", "dO", "stats") if kind.is_gradient else ("q", "k", "v")
    sums = 5 if kind.is_gradient else 4

    def type_of(number: int) -> Any:
        return _names()[torch.float32 if number == sums else kind.dtype]

    given = {
        name: graph.tensor(dim=[*shape], stride=[*strides], data_type=type_of(number), uid=number)
        for number, (name, (shape, strides)) in enumerate(zip(names, layouts, strict=False))
    }
    sides = cudnn.diagonal_alignment
    seen = {
        "diagonal_alignment": sides.BOTTOM_RIGHT if kind.follows else sides.TOP_LEFT,
        "diagonal_band_right_bound": 0,
        **({"diagonal_band_left_bound": kind.window} if kind.window else {}),
    }
    scale = layouts[0][0][3] ** -0.5
    if kind.is_gradient:
        exactly = kind.is_deterministic
        made = graph.sdpa_backward(
            **given, **seen, attn_scale=scale, use_deterministic_algorithm=exactly
        )
    else:
        made = graph.sdpa(**given, **seen, attn_scale=scale, generate_stats=not kind.follows)
    for number, found in enumerate(made[: len(layouts) - len(given)], start=len(given)):
        shape, strides = layouts[number]
        found.set_output(True).set_dim([*shape]).set_stride([*strides])
        found.set_data_type(type_of(number)).set_uid(number)


@lru_cache(maxsize=1)
def _names() -> dict[torch.dtype, Any]:
    import cudnn

    types = cudnn.data_type
    return {
        torch.bfloat16: types.BFLOAT16,
        torch.float16: types.HALF,
        torch.float32: types.FLOAT,
    }
