"""Causal attention and sliding windows as graphs of cuDNN's own, with their gradients.

torch reaches cuDNN for whole sequences alone and lets it plan every new length for some 60 ms. Its own interface
(nvidia-cudnn-frontend, the extra `cuda`) has windows too, twice as fast as FlashAttention-2 on a Hopper GPU, and keeps
kernels for all lengths, so that a new one costs 4 ms. Figures: docs/performance.md.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

log = logging.getLogger(__name__)

ALIGNMENT = 8  # numbers of half precision: 16 bytes


class Sight(NamedTuple):
    """Which keys a query sees. The last query and the last key belong together."""

    causal: bool
    window: int = 0  # keys, its own included; 0: all


def applies(q: Tensor) -> bool:
    """cuDNN may attend for q [B, H, L, Dh]; the reason is logged once."""
    if q.device.type != "cuda":
        return False
    return _applies(q.device, q.dtype, q.shape[3])


@lru_cache(maxsize=16)
def _applies(device: torch.device, dtype: torch.dtype, dim: int) -> bool:
    found = problem(torch.cuda.get_device_capability(device), dtype, dim, is_installed())
    log.info("windows: %s", f"not by cuDNN, {found}" if found else "graphs of cuDNN")
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


def attend(q: Tensor, k: Tensor, v: Tensor, sight: Sight) -> Tensor:
    """q [B, H, L, Dh] over k, v [B, Hkv, N, Dh] -> [B, H, L, Dh], tokens side by side; differentiable."""
    if torch.is_grad_enabled():
        out: Tensor = _Attention.apply(q, k, v, sight)
        return out
    return forward(q, k, v, sight)[0]


def forward(q: Tensor, k: Tensor, v: Tensor, sight: Sight) -> tuple[Tensor, Tensor]:
    """As `attend` without gradients, and the log-sum-exp of every query's scores, [B, H, L] float32."""
    inputs = tuple(_laid(x) for x in (q, k, v))
    batch, heads, length, dim = q.shape
    out = q.new_empty(batch, length, heads, dim).transpose(1, 2)
    sums = q.new_empty(batch, heads, length, 1, dtype=torch.float32)
    _run(_Kind(False, q.dtype, q.device, sight, False), (*inputs, out, sums))
    return out, sums[..., 0]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, sight: Sight) -> Tensor:
        out, sums = forward(q, k, v, sight)
        ctx.save_for_backward(q, k, v, out, sums)
        ctx.sight = sight
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, sums = ctx.saved_tensors
        inputs = tuple(_laid(x) for x in (q, k, v, out, grad))
        made = tuple(torch.empty_like(x) for x in (q, k, v))
        is_exact = torch.are_deterministic_algorithms_enabled()
        kind = _Kind(True, q.dtype, q.device, ctx.sight, is_exact)
        _run(kind, (*inputs, sums[..., None], *made))
        return (*made, None)


def _laid(x: Tensor) -> Tensor:
    """x as cuDNN reads it: a head's numbers side by side, everything at multiples of 16 bytes."""
    is_aligned = not any(step % ALIGNMENT for step in x.stride()[:3]) and x.data_ptr() % 16 == 0
    return x if x.stride(3) == 1 and is_aligned and 0 not in x.stride() else x.contiguous()


class _Kind(NamedTuple):
    """What a graph depends on besides lengths and places."""

    is_gradient: bool
    dtype: torch.dtype
    device: torch.device
    sight: Sight
    is_deterministic: bool  # of gradients


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


_lock = threading.Lock()  # plans of all threads share kernels
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

    with _lock:
        graph = cudnn.pygraph(
            io_data_type=_names()[kind.dtype],
            intermediate_data_type=cudnn.data_type.FLOAT,
            compute_data_type=cudnn.data_type.FLOAT,
            handle=_handle(kind.device),
            kernel_cache=_kernels(kind),
            is_dynamic_shape_enabled=True,
        )
        _describe(graph, kind, layouts)
        graph.build([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
        return _Plan(graph, graph.get_workspace_size())


@lru_cache(maxsize=64)
def _kernels(kind: _Kind) -> Any:
    """Compiled kernels, which all lengths of a kind share."""
    import cudnn

    return cudnn.create_kernel_cache()


def _describe(graph: Any, kind: _Kind, layouts: tuple[Layout, ...]) -> None:
    """Say what is computed; a tensor's name is its number in `layouts`."""
    half, single = _names()[kind.dtype], _names()[torch.float32]
    sums = 5 if kind.is_gradient else 4

    def tensor(number: int) -> Any:
        shape, strides = layouts[number]
        of = single if number == sums else half
        return graph.tensor(dim=list(shape), stride=list(strides), data_type=of, uid=number)

    def tell(found: Any, number: int) -> None:
        shape, strides = layouts[number]
        found.set_output(True).set_dim(list(shape)).set_stride(list(strides))
        found.set_data_type(single if number == sums else half).set_uid(number)

    how = {"attn_scale": layouts[0][0][3] ** -0.5, **_masks(kind.sight, layouts)}
    names = ("q", "k", "v", "o", "dO", "stats") if kind.is_gradient else ("q", "k", "v")
    given = {name: tensor(number) for number, name in enumerate(names)}
    make: Callable[..., Any] = graph.sdpa
    if kind.is_gradient:
        make, how["use_deterministic_algorithm"] = graph.sdpa_backward, kind.is_deterministic
    else:
        how["generate_stats"] = True
    for number, found in enumerate(make(**given, **how), start=len(given)):
        tell(found, number)


def _masks(sight: Sight, layouts: tuple[Layout, ...]) -> dict[str, Any]:
    import cudnn

    if not sight.causal:
        return {}
    ends = layouts[0][0][2] != layouts[1][0][2]  # more keys than queries
    sides = cudnn.diagonal_alignment
    found = {
        "diagonal_alignment": sides.BOTTOM_RIGHT if ends else sides.TOP_LEFT,
        "diagonal_band_right_bound": 0,
    }
    return found | ({"diagonal_band_left_bound": sight.window} if sight.window else {})


@lru_cache(maxsize=1)
def _names() -> dict[torch.dtype, Any]:
    import cudnn

    types = cudnn.data_type
    return {
        torch.bfloat16: types.BFLOAT16,
        torch.float16: types.HALF,
        torch.float32: types.FLOAT,
    }
