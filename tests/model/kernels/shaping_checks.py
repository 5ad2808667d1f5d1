"""Streaming's token-wise passes against torch's own operations."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from spatial_ttt.model.kernels import interpreting
from spatial_ttt.model.layers import rms_norm, rotate
from tests.model.kernels.check import Check, Function


def shaping(device: torch.device) -> Iterator[Check]:
    """Streaming's token-wise passes, at odd sizes and on slices of wider tensors."""
    from spatial_ttt.model.kernels import shaping as kernel
    from spatial_ttt.model.vision import _turn

    kinds = ((torch.float32, 3e-6), (torch.bfloat16, 8e-3))
    sizes = [(2, 5, 24), (1, 19, 40)] + [(2, 700, 2048)] * (device.type == "cuda")
    for (batch, length, size), (dtype, limit) in product(sizes, kinds):

        def random(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.randn(*shape, device=device).to(dtype)

        name = f"{batch}x{length}x{size} {dtype}"
        wide, more = random(batch, length + 2, size)[:, 1:-1], random(batch, length, size)
        weight = random(size)
        norm: Function = lambda x, m, w: (x + m, F.rms_norm(x + m, w.shape, w, 1e-6))  # noqa: E731
        add: Function = lambda x, m, w: kernel.add_rms_norm(x, m, w, 1e-6)  # noqa: E731
        yield Check(f"add and norm {name}", add, norm, (wide, more, weight), limit, False)
        layer: Any = torch.nn.LayerNorm(size, 1e-6, device=device, dtype=dtype)
        torch.nn.init.normal_(layer.weight), torch.nn.init.normal_(layer.bias)
        sides = (layer.weight.detach(), layer.bias.detach())

        def centred(x: Tensor, m: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            made = (F.layer_norm(y, w.shape, w, b, 1e-6) for y in (x + m[0, 0], x))
            return x, *made

        def both(x: Tensor, late: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            late = late[0, 0].float()  # as sums of biases are
            return x, kernel.layer_norm(x, late, layer), kernel.layer_norm(x, None, layer)  # noqa: B023

        yield Check(f"layer norm {name}", both, centred, (more, wide, *sides), limit, False)
        lone: Function = lambda x, w: kernel.rms_norm(x, w, 1e-6)  # noqa: E731
        plain: Function = lambda x, w: F.rms_norm(x, w.shape, w, 1e-6)  # noqa: E731
        yield Check(f"norm {name}", lone, plain, (wide, weight), limit, False)
        half: Function = lambda x: F.silu(x[..., : size // 2]) * x[..., size // 2 :]  # noqa: B023, E731
        yield Check(f"swiglu {name}", kernel.swiglu_halves, half, (more,), limit, False)
        heads = 2
        dim = size // 8
        qkv, cos, sin = (
            random(batch, length, 6 * dim * heads),
            random(length, dim),
            random(length, dim),
        )

        bias = random(6 * dim * heads)

        def turn(qkv: Tensor, bias: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
            late = bias.clone()
            late[4 * dim * heads :] = 0  # noqa: B023 - of the values
            q, k, v = (qkv + late).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)  # noqa: B023
            parts = (_turn(q, cos, sin), _turn(k, cos, sin), v)
            return torch.stack(parts).permute(1, 3, 0, 2, 4).flatten(2)

        def fast(qkv: Tensor, bias: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
            return kernel.turn_patches(qkv.clone(), cos, sin, heads, bias)  # noqa: B023

        yield Check(f"patches {name}", fast, turn, (qkv, bias, cos, sin), limit, False)


def heads(device: torch.device) -> Iterator[Check]:
    """Heads of a piece, normed and rotated, behind free memory and before zeros."""
    from spatial_ttt.model.kernels import shaping as kernel

    shapes = [(2, 7, 4, 2, 12), (1, 33, 2, 1, 16)]  # rows, tokens, heads, KV heads, channels
    if device.type == "cuda":
        shapes.append((1, 700, 16, 8, 128))
    kinds = ((torch.float32, 3e-6), (torch.bfloat16, 1.5e-2))
    for shape, (dtype, limit), (room, zeros) in product(shapes, kinds, ((0, 0), (3, 0), (0, 5))):
        batch, length, num, kv_heads, dim = shape
        qkv = torch.randn(batch, length + 2, (num + 2 * kv_heads) * dim, device=device).to(dtype)
        rope = torch.randn(batch, length + 2, dim, device=device).to(dtype)
        weights = torch.randn(2, dim, device=device).to(dtype)
        sizes = kv_heads, dim, room, zeros

        def fast(
            qkv: Tensor, rope: Tensor, weights: Tensor, sizes: tuple[int, int, int, int] = sizes
        ) -> tuple[Tensor, ...]:
            kv_heads, _, room, zeros = sizes
            norms = kernel.HeadNorms(weights[0], weights[1], 1e-6)
            return kernel.heads(qkv[:, 1:-1], rope[:, 1:-1], norms, kv_heads, None, room, zeros)[:3]

        def plain(
            qkv: Tensor, rope: Tensor, weights: Tensor, sizes: tuple[int, int, int, int] = sizes
        ) -> tuple[Tensor, ...]:
            kv_heads, dim, _, zeros = sizes
            wide = qkv[:, 1:-1].unflatten(-1, (-1, dim)).transpose(1, 2)
            q, k, v = wide.split((wide.shape[1] - 2 * kv_heads, kv_heads, kv_heads), dim=1)
            q, k = (rms_norm(x, w, 1e-6) for x, w in zip((q, k), weights, strict=True))
            turned = rotate(q, rope[:, 1:-1]), rotate(k, rope[:, 1:-1]), v
            return tuple(F.pad(x, (0, 0, 0, zeros)) for x in turned)

        name = f"{shape} {dtype} room {room} zeros {zeros}"
        yield Check(name, fast, plain, (qkv, rope, weights), limit, False)


def trained_heads(device: torch.device) -> Iterator[Check]:
    """What a token brings along, and its gradients: tokens that fill no program, slices of larger tensors."""
    from spatial_ttt.model.kernels import trained_heads as kernel
    from spatial_ttt.model.kernels.shaping import HeadNorms

    shapes = [(2, 66, 2, 1, 12), (1, 9, 2, 2, 16)]  # rows, tokens, heads, KV heads, channels
    if device.type == "cuda" or not interpreting():  # compiled there, or only compiled
        shapes.append((2, 700, 16, 8, 128))
    kinds = ((torch.float32, 3e-6), (torch.bfloat16, 1.5e-2))
    for shape, (dtype, limit), has_fast in product(shapes, kinds, (True, False)):
        batch, length, num, kv_heads, dim = shape

        def random(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.randn(*shape, device=device).to(dtype)

        qkv = random(batch, length + 2, (num + 2 * kv_heads) * dim)
        rope = random(batch, length + 2, dim)
        inputs = (qkv, random(2, dim), random(4, num * dim) * 0.5 + 1)

        def fast(
            qkv: Tensor, weights: Tensor, scales: Tensor,
            rope: Tensor = rope, kv_heads: int = kv_heads, has_fast: bool = has_fast,
        ) -> tuple[Tensor, ...]:  # fmt: skip
            norms = HeadNorms(weights[0], weights[1], 1e-6)
            table = scales if has_fast else None
            made = kernel.heads(qkv[:, 1:-1], rope[:, 1:-1], norms, kv_heads, table)
            return _lying_apart(tuple(x for x in made if x is not None))

        def plain(
            qkv: Tensor, weights: Tensor, scales: Tensor,
            rope: Tensor = rope, kv_heads: int = kv_heads, has_fast: bool = has_fast,
        ) -> tuple[Tensor, ...]:  # fmt: skip
            wide = qkv[:, 1:-1].unflatten(-1, (-1, rope.shape[-1]))
            groups = wide.shape[2] // kv_heads - 2
            q, k, v = wide.split((groups * kv_heads, kv_heads, kv_heads), dim=2)
            q, k = (rms_norm(x, w, 1e-6) for x, w in zip((q, k), weights, strict=True))
            angles = rope[:, 1:-1].to(qkv.dtype)
            turned = (rotate(x.transpose(1, 2), angles) for x in (q, k))
            made = (*turned, v.transpose(1, 2))
            if not has_fast:
                return made
            repeated = (x.repeat_interleave(groups, dim=2).flatten(2) for x in (k, v))
            key, value = repeated
            scaled = (q.flatten(2) * scales[0] + scales[1], key * scales[2] + scales[3], value)
            return *made, torch.cat(scaled, dim=-1)

        yield Check(f"{shape} {dtype} fast {has_fast}", fast, plain, inputs, limit)


def _lying_apart(made: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The same, whose gradients come as slices of larger tensors do."""
    return tuple(F.pad(x, (1, 2))[..., 1:-2] for x in made)


def trained_rates(device: torch.device) -> Iterator[Check]:
    """Rates of rows that lie apart, with and without momentum and gate, and their gradients."""
    from spatial_ttt.model.kernels import trained_heads as kernel

    kinds = ((torch.float32, 3e-6), (torch.bfloat16, 8e-3))
    for (momentum, gate), (dtype, limit) in product(((1, 1), (0, 1), (1, 0)), kinds):
        width = 4 * (3 + momentum + gate)
        has = bool(momentum), bool(gate)
        raw = (2 * torch.randn(2, 37, width + 4, device=device)).to(dtype)

        def fast(raw: Tensor, has: tuple[bool, bool] = has) -> tuple[Tensor, ...]:
            lr, *rest = kernel.rates(raw[..., :-4], -3.0, 4, has)
            return lr, *(x.mT.contiguous() for x, wanted in zip(rest, has, strict=True) if wanted)

        def plain(raw: Tensor, has: tuple[bool, bool] = has) -> tuple[Tensor, ...]:
            lr, rest = F.softplus(raw[..., :12] - 3.0), raw[..., 12:-4].split(4, dim=-1)
            made = (torch.sigmoid(rest[0]),) * has[0] + (F.silu(rest[-1]),) * has[1]
            return lr, *(x.mT for x in made)

        yield Check(f"momentum {momentum} gate {gate} {dtype}", fast, plain, (raw,), limit)
