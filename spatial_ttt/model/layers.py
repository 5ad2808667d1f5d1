"""Small layers: RMSNorm that keeps float64 exact, rotary position embedding, SwiGLU MLP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spatial_ttt.model.configuration import state_dtype
from spatial_ttt.model.kernels import shaping

STRETCH_TOKENS = 2784
"""A device is busy with the MLP of so many tokens; more at once only take memory."""

T = TypeVar("T")


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis, in at least float32 (Qwen3-VL's, exact in float64)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] -> [..., size]."""
        if shaping.applies(x):
            return shaping.rms_norm(x, self.weight, self.eps)
        return rms_norm(x, self.weight, self.eps)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over the last axis."""
    exact = x.to(state_dtype(x.dtype))
    scale = torch.rsqrt(exact.square().mean(-1, keepdim=True) + eps)
    return weight * (exact * scale).to(x.dtype)


def taken(given: T | list[T]) -> T:
    """What was given, or given away in a list of one: then its memory is free as soon as the taker lets go of it."""
    return given.pop() if isinstance(given, list) else given


class MLP(nn.Module):
    """down(silu(gate x) * up x), named as Qwen3-VL names it."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        return self.down_proj(self._hidden(x))

    def add_to(self, hidden: Tensor, x: Tensor) -> Tensor:
        """`hidden` [B, L, D], where kernels run written over, with what `forward` makes of x [B, L, D] added."""
        inner = self._hidden(x)
        if not shaping.applies(x):
            return hidden + self.down_proj(inner)
        if type(self.down_proj) is not nn.Linear:
            return hidden.add_(self.down_proj(inner))
        # The product is added before it is rounded, where it is made.
        hidden.flatten(0, -2).addmm_(inner.flatten(0, -2), self.down_proj.weight.t())
        return hidden

    def _hidden(self, x: Tensor) -> Tensor:
        packed = packed_weights(self, x, self.gate_proj, self.up_proj)
        if packed is not None:
            return _gated(x, packed.weight)
        return F.silu(self.gate_proj(x)) * self.up_proj(x)


def _gated(x: Tensor, weight: Tensor) -> Tensor:
    """silu(gate x) * up x of [B, L, D]; many tokens in stretches, so that not all products lie there at once."""
    parts = -(-x.shape[1] // STRETCH_TOKENS) if x.shape[0] == 1 else 1
    if parts < 2:
        return shaping.swiglu_halves(F.linear(x, weight))
    out = x.new_empty(1, x.shape[1], weight.shape[0] // 2)
    for rows, to in zip(x.tensor_split(parts, 1), out.tensor_split(parts, 1), strict=True):
        shaping.swiglu_halves(F.linear(rows, weight), to)
    return out


class Packed(NamedTuple):
    """Weights of linear layers that read the same input, one below the other in one buffer."""

    weight: Tensor
    bias: Tensor | None
    owners: tuple[nn.Linear, ...]


def pack(module: nn.Module, layers: Sequence[nn.Linear]) -> Packed:
    """Move the layers' weights into one buffer (each keeps its part as a view) and remember it on `module`.

    Nothing is held twice, and state dicts do not change.
    """
    with torch.no_grad():
        weight = torch.cat([layer.weight for layer in layers])
        bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
        at = 0
        for layer in layers:
            stop = at + layer.out_features
            layer.weight.data = weight[at:stop]
            if bias is not None:
                layer.bias.data = bias[at:stop]
            at = stop
    packed = Packed(weight, bias, tuple(layers))
    module.__dict__.setdefault("packed", {})[tuple(id(layer) for layer in layers)] = packed
    return packed


def packed_weights(module: nn.Module, x: Tensor, *layers: nn.Linear) -> Packed | None:
    """The packed weights of these layers of `module`, if they apply now.

    None while gradients are wanted, where kernels do not run, and once a weight was moved.
    """
    known = module.__dict__.get("packed")
    if not known or not shaping.applies(x):
        return None
    packed = known.get(tuple(map(id, layers)))
    if packed is None or packed.owners[0].weight.data_ptr() != packed.weight.data_ptr():
        return None
    return cast(Packed, packed)


def linear_together(module: nn.Module, x: Tensor, layers: Sequence[nn.Linear]) -> Tensor:
    """The outputs of linear layers side by side, [..., sum of their widths]."""
    packed = packed_weights(module, x, *layers)
    if packed is not None:
        if packed.bias is None:
            return F.linear(x, packed.weight)
        rows = x.flatten(0, -2)
        # As a vector it would go to cuBLASLt, which takes the host twice as long.
        bias = packed.bias.expand(rows.shape[0], -1)
        return torch.addmm(bias, rows, packed.weight.t()).unflatten(0, x.shape[:-1])
    if torch.is_grad_enabled() and all(type(layer) is nn.Linear for layer in layers):
        return _trained_together(x, layers)
    return torch.cat([layer(x) for layer in layers], dim=-1)


def _trained_together(x: Tensor, layers: Sequence[nn.Linear]) -> Tensor:
    """`linear_together` with gradients; rows lie apart where zeros were put behind the outputs (see `_spare`)."""
    width = sum(layer.out_features for layer in layers)
    weights: list[Tensor] = [layer.weight for layer in layers]
    biases: list[Tensor] = [layer.bias for layer in layers if layer.bias is not None]
    spare = _spare(x, width)
    if spare:
        zeros = _zeros(spare, x.shape[-1], x.dtype, x.device)
        weights.append(zeros)
        biases += [zeros.flatten()[:spare]] if biases else []
    out = F.linear(x, torch.cat(weights), torch.cat(biases) if biases else None)
    return out[..., :width] if spare else out


def _spare(x: Tensor, width: int) -> int:
    """Outputs that `width` lacks for rows of whole 16 bytes, where products need such to be fast: in half precision on
    a GPU."""
    return -width % 8 if x.is_cuda and x.dtype.itemsize == 2 else 0


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # else the kept tensors could not be used in training
def _zeros(rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.zeros(rows, columns, dtype=dtype, device=device)


def linear_behind(
    before: Tensor, module: nn.Module, x: Tensor, layers: Sequence[nn.Linear]
) -> Tensor:
    """`before` [B, N, W] and behind it what `linear_together` makes of x [B, L, D]: [B, N + L, W]."""
    packed = packed_weights(module, x, *layers)
    if packed is None or packed.bias is not None or x.shape[0] > 1:
        return torch.cat((before, linear_together(module, x, layers)), dim=1)
    count = before.shape[1]
    out = before.new_empty(1, count + x.shape[1], before.shape[2])
    out[:, :count] = before
    torch.mm(x[0], packed.weight.t(), out=out[0, count:])
    return out


def keep_derived(module: nn.Module) -> None:
    """Prepare a module whose products stay apart: what is `derived` of its weights is kept."""
    module.__dict__.setdefault("packed", {})


def derived(
    module: nn.Module, name: str, weights: Sequence[Tensor], make: Callable[[], Tensor]
) -> Tensor:
    """What `make` makes of these weights of `module`; on a prepared module it is kept until one of them changes."""
    is_told = not any(weight.is_inference() for weight in weights)  # of changes
    if torch.is_grad_enabled() or "packed" not in module.__dict__ or not is_told:
        return make()
    key = tuple((weight.data_ptr(), weight._version) for weight in weights)
    known: dict[str, tuple[Any, Tensor]] = module.__dict__.setdefault("derived", {})
    if name not in known or known[name][0] != key:
        known[name] = (key, make())
    return known[name][1]


class RotaryEmbedding(nn.Module):
    """Interleaved three-axis rotary angles: frequency i turns by row, column or time."""

    def __init__(self, text_config: Any) -> None:
        super().__init__()
        rope = text_config.rope_parameters
        self.theta = float(rope["rope_theta"])
        self.head_dim = text_config.head_dim
        _, rows, cols = rope.get("mrope_section", (24, 20, 20))
        limits = {1: 3 * rows, 2: 3 * cols}
        half = self.head_dim // 2
        # Frequency i turns by row (1) or column (2) where i = 1 or 2 mod 3, by time (0) elsewhere.
        self.axis = tuple(i % 3 if i % 3 and i < limits[i % 3] else 0 for i in range(half))

    def forward(self, positions: Tensor, dtype: torch.dtype) -> Tensor:
        """Positions [3, B, L] -> cos and sin side by side [B, L, head_dim]: cos then sin of each frequency.

        Angles are made in float32 for every model, as the trained weights expect.
        """
        inv_freq, axis = _frequencies(self.theta, self.axis, self.head_dim, positions.device)
        angle = positions.float().movedim(0, -1)[..., axis] * inv_freq  # [B, L, head_dim / 2]
        return torch.cat((angle.cos(), angle.sin()), dim=-1).to(dtype)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # else the kept tensors could not be used in training
def _frequencies(
    theta: float, axis: tuple[int, ...], head_dim: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Inverse frequencies and the axis each turns by [head_dim / 2]."""
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    return 1.0 / (theta**exponent), torch.tensor(axis, device=device)


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Turn the first head_dim channels of x [B, H, L, >= head_dim] by `rope` [B, L, head_dim]."""
    half = rope.shape[-1] // 2
    cos, sin = rope[:, None, :, :half], rope[:, None, :, half:]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    turned = (first * cos - second * sin, second * cos + first * sin)
    return torch.cat((*turned, rest) if rest.shape[-1] else turned, dim=-1)
