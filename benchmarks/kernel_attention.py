"""Cases of benchmarks/kernels.py: attention in training, in the vision tower and over a stream's window; products."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.kernel_cases import Bench, measure, milliseconds
from spatial_ttt.bench.clock import synchronize
from spatial_ttt.model.attention import attend
from spatial_ttt.model.kernels import attention, cudnn_attention, request_backend, tower_attention
from spatial_ttt.model.kernels.attention import Past

HEADS, KV_HEADS, DIM, WINDOW = 16, 8, 128, 2648
PRODUCTS = 200


def attention_cases(bench: Bench) -> None:
    """Training at the 2B shapes, slots of 660 patches, pieces of 60 and 64 slots."""
    dtype = torch.bfloat16 if bench.device.type == "cuda" else torch.float32
    training(bench, dtype)
    tower(bench, dtype)
    windows(bench, dtype)


def training(bench: Bench, dtype: torch.dtype) -> None:
    """Two rows of a pack, forward and backward: torch's choice, and cuDNN's graphs."""
    length, window = (96, 33) if bench.tiny else (11_264, WINDOW)
    inputs = [_heads(bench, 2, n, length, dtype) for n in (HEADS, KV_HEADS, KV_HEADS)]
    for case, seen in (("window", window), ("whole", None)):

        def by_torch(q: Tensor, k: Tensor, v: Tensor, seen: int | None = seen) -> Tensor:
            with request_backend("reference"):
                return attend(q, k, v, window=seen)

        def by_cudnn(q: Tensor, k: Tensor, v: Tensor, seen: int | None = seen) -> Tensor:
            return cudnn_attention.attend(q, k, v, seen or 0)

        variants: dict[str, Callable[..., Tensor]] = {"torch": by_torch}
        if cudnn_attention.applies(*inputs[:2]):
            variants["cudnn"] = by_cudnn
        for name, function in variants.items():
            measure(bench, "attention", f"{case} 2x{length}", name, function, inputs)


def tower(bench: Bench, dtype: torch.dtype) -> None:
    """Full attention inside slots, without gradients."""
    slots, patches, heads = (2, 20, 2) if bench.tiny else (32, 660, 16)
    qkv = torch.randn(slots, patches, 3 * heads * 64, device=bench.device).to(dtype)

    def sdpa() -> Tensor:
        q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v)

    variants: dict[str, Callable[[], Tensor]] = {"torch": sdpa}
    with torch.no_grad():
        if tower_attention.applies(qkv, heads):
            variants["triton"] = lambda: tower_attention.attend(qkv, heads)
        for name, function in variants.items():
            _time(bench, f"tower {slots}x{patches}x{heads}", name, function)


def windows(bench: Bench, dtype: torch.dtype) -> None:
    """The streaming kernel, whose tiles must not suffer from lengths that they do not divide, and cuDNN's graphs."""
    if bench.device.type != "cuda":
        return  # the interpreter does not take all of its tiles
    window, behind = 40 if bench.tiny else WINDOW, cudnn_attention.STREAM_LENGTHS
    for length in (50,) if bench.tiny else (10_440, 11_136):
        wide = (
            _heads(bench, 1, heads, more + length + behind, dtype).contiguous()
            for heads, more in ((HEADS, 0), (KV_HEADS, window), (KV_HEADS, window))
        )
        q, k, v = (x[:, :, : x.shape[2] - behind] for x in wide)
        with torch.no_grad():
            variants: dict[str, Callable[[], Tensor]] = {
                "triton": partial(attention.attend, q, Past(k, v, None), window, window=window)
            }
            if cudnn_attention.reads_window(q, k, window, behind):
                variants["cudnn"] = partial(cudnn_attention.attend_window, q, k, v, window)
            for name, work in variants.items():
                _time(bench, f"stream's window 1x{length}", name, work)


def product_cases(bench: Bench) -> None:
    """What a product costs the host: torch 2.11 reads CUBLAS_WORKSPACE_CONFIG at each one."""
    dtype = torch.bfloat16 if bench.device.type == "cuda" else torch.float32
    x = torch.randn(64, 256 if bench.tiny else 2048, device=bench.device).to(dtype)
    weight = torch.randn(x.shape[1], x.shape[1], device=bench.device).to(dtype)

    def work() -> dict[str, Any]:
        with torch.no_grad():
            F.linear(x, weight)
            synchronize(bench.device)
            began = time.perf_counter()
            for _ in range(PRODUCTS):
                F.linear(x, weight)
            seconds = time.perf_counter() - began
            synchronize(bench.device)
        config = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
        return {"host_us": 1e6 * seconds / PRODUCTS, "cublas_workspace_config": config}

    bench.attempt("products", f"64x{x.shape[1]}x{x.shape[1]}", "torch", work)


def _heads(bench: Bench, batch: int, heads: int, length: int, dtype: torch.dtype) -> Tensor:
    """[B, H, L, Dh] as a projection leaves it."""
    dim = 16 if bench.tiny else DIM
    return torch.randn(batch, length, heads, dim, device=bench.device).to(dtype).transpose(1, 2)


def _time(bench: Bench, case: str, variant: str, function: Callable[[], Tensor]) -> None:
    bench.attempt("attention", case, variant, lambda: {"forward_ms": milliseconds(function, bench)})
