"""Qwen3-VL's vision tower, run slot by slot.

Attention in the tower never crosses a slot (one temporal patch of two frames), so slots of equal
size go through as a batch, exactly. The modules and weights are transformers'; the forward is ours
because theirs loops over slots in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from spatial_ttt.model.kernels import shaping, tower_attention
from spatial_ttt.model.layers import derived, keep_derived, taken

BATCH_SLOTS = 32
"""Most slots that go through the tower at once."""


class VisionTokens(NamedTuple):
    """What the decoder reads of S slots with N = h * w vision tokens each."""

    tokens: Tensor  # [S, N, D]
    deepstack: Tensor  # [K, S, N, D], features of the K DeepStack taps


def encode_slots(visual: Any, given: Tensor | list[Tensor], grid: tuple[int, int]) -> VisionTokens:
    """Encode S slots: patches [S, height * width, channels * 2 * patch * patch], `grid` in patches.

    Patches come in merge order: the 2 x 2 patches of one vision token lie next to each other. Without gradients many
    slots go through in batches, which bound the memory and keep a GPU busy. Patches may be given away.
    """
    patches = taken(given)
    if torch.is_grad_enabled():
        return _encode(visual, [patches], grid)
    batches = list(patches.split(batch_slots(patches.shape[0])))
    del patches
    return in_batches(lambda some: _encode(visual, some, grid), batches)


def batch_slots(slots: int) -> int:
    """Slots of a batch, so that all batches are of about one size."""
    return -(-slots // max(1, -(-slots // BATCH_SLOTS)))


def in_batches(
    encode: Callable[[list[Tensor]], VisionTokens], batches: list[Tensor]
) -> VisionTokens:
    """The vision tokens of batches of equal size (the last may be smaller), each given to `encode` in its turn."""
    count = len(batches)
    first = encode([batches.pop(0)])
    if not batches:
        return first
    size = first.tokens.shape[0]
    tokens = first.tokens.new_empty(count * size, *first.tokens.shape[1:])
    deepstack = first.deepstack.new_empty(
        first.deepstack.shape[0], count * size, *first.deepstack.shape[2:]
    )
    box, stop = [first], 0
    del first  # the parts are large: each goes once it is copied
    for _ in range(count):
        made = box.pop() if box else encode([batches.pop(0)])
        start, stop = stop, stop + made.tokens.shape[0]
        tokens[start:stop] = made.tokens
        deepstack[:, start:stop] = made.deepstack
        del made
    return VisionTokens(tokens[:stop], deepstack[:, :stop])


def _encode(visual: Any, box: list[Tensor], grid: tuple[int, int]) -> VisionTokens:
    weight = visual.patch_embed.proj.weight
    merge, device = visual.config.spatial_merge_size, weight.device
    index, share = _interpolation(grid, visual.num_grid_per_side, merge, device)
    where = (visual.pos_embed(index) * share[..., None].to(weight.dtype)).sum(1)
    flat, bias = weight.flatten(1), visual.patch_embed.proj.bias
    given = [F.linear(box.pop().to(weight.dtype), flat, bias) + where]
    head_dim = visual.config.hidden_size // visual.config.num_heads
    cos, sin = _rotation(grid, head_dim, _theta(visual.config), merge, device)
    taps = list(visual.config.deepstack_visual_indexes)
    features = []
    for number, seen in enumerate(_through(visual, given, cos, sin, taps)):
        last = number == len(taps)
        merger = visual.merger if last else visual.deepstack_merger_list[number]
        features.append(_merge(merger, seen))
        del seen  # else it would last until the next tap
    tokens = features.pop()
    deepstack = torch.stack(features) if features else tokens.new_zeros(0, *tokens.shape)
    return VisionTokens(tokens, deepstack)


def _through(
    visual: Any, given: list[Tensor], cos: Tensor, sin: Tensor, taps: list[int]
) -> Iterator[Tensor]:
    """Patches, which are given away, after each tapped block and after the last."""
    x = given.pop()
    wanted = [*taps, len(visual.blocks) - 1]
    if not shaping.applies(x):
        run_block = visual.__dict__.get("compiled_block", vision_block)
        for number, block in enumerate(visual.blocks):
            x = run_block(block, x, cos, sin)
            yield from [x] * wanted.count(number)
        return
    lacking = _lacking(visual, wanted)
    late: Tensor | None = None  # what x lacks: norms add it on the way
    for number, block in enumerate(visual.blocks):
        # Large tensors are given away: each goes as soon as it is read.
        box = [shaping.layer_norm(x, late, block.norm1)]
        _add_attention(x, block.attn, box, cos, sin)
        box = [shaping.layer_norm(x, lacking[2 * number], block.norm2)]
        _add_mlp(x, block.mlp, box)
        late = lacking[2 * number + 1]
        if number in wanted:
            x, late = x.add_(late.to(x.dtype)), None
            yield from [x] * wanted.count(number)


def _lacking(visual: Any, wanted: list[int]) -> tuple[Tensor, ...]:
    """The biases that x lacks behind each attention and each MLP, summed up: float32 [D] each, two a block.

    cuBLAS asks the host twice as long for a product with a bias as for one without; behind blocks that are `wanted` x
    gets all it lacks. Shares of attention sum to one, so the bias of its values passes through it, and the projection
    makes it a part of its own.
    """
    layers = [(block.attn.qkv, block.attn.proj, block.mlp.linear_fc2) for block in visual.blocks]

    def make() -> Tensor:
        total, sums = torch.zeros_like(layers[0][1].bias, dtype=torch.float32), []
        for number, (first, last, down) in enumerate(layers):
            of_values = last.weight.float() @ first.bias[2 * last.in_features :].float()
            sums.append(total + last.bias.float() + of_values)
            sums.append(sums[-1] + down.bias.float())
            total = torch.zeros_like(total) if number in wanted else sums[-1]
        return torch.stack(sums)

    weights = [
        weight
        for first, last, down in layers
        for weight in (first.bias, last.weight, last.bias, down.bias)
    ]
    return derived(_keeper(visual), f"lacking until {wanted}", weights, make).unbind()


def keep_derived_of(visual: Any) -> None:
    """Prepare a tower whose weights stay as they are: what is derived of them is kept (see `layers.derived`)."""
    keep_derived(_keeper(visual))


def _keeper(visual: Any) -> Any:
    """What keeps for all blocks."""
    return visual.blocks[0].attn


def vision_block(block: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """One block of the tower over S slots at once, [S, patches, width]."""
    x = x + _attention(block.attn, block.norm1(x), cos, sin)
    out: Tensor = x + block.mlp(block.norm2(x))
    return out


def _add_mlp(to: Tensor, mlp: Any, given: list[Tensor]) -> None:
    """Add what the MLP makes of x [S, P, D], which is given away, in place, but for its last bias."""
    x, first, second = given.pop(), mlp.linear_fc1, mlp.linear_fc2
    if x.device.type == "cuda" and _is_tanh_gelu(mlp):
        # cuBLAS applies this activation while it writes the product.
        wide = torch._addmm_activation(first.bias, x.flatten(0, 1), first.weight.t(), use_gelu=True)
    else:
        wide = mlp.act_fn(first(x)).flatten(0, 1)
    del x
    to.flatten(0, 1).addmm_(wide, second.weight.t())


def _is_tanh_gelu(mlp: Any) -> bool:
    return getattr(mlp.act_fn, "approximate", None) == "tanh" or "Tanh" in type(mlp.act_fn).__name__


def _theta(config: Any) -> float:
    return float((config.rope_parameters or {}).get("rope_theta", 10000.0))


def _merge(merger: Any, x: Tensor) -> Tensor:
    return merger(x.flatten(0, 1)).unflatten(0, (x.shape[0], -1))


def _attention(attn: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    q, k, v = attn.qkv(x).unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    q, k = _turn(q, cos, sin), _turn(k, cos, sin)
    return attn.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def _add_attention(to: Tensor, attn: Any, given: list[Tensor], cos: Tensor, sin: Tensor) -> None:
    """As `_add_mlp`, but for the bias of values, too; those of queries and keys are added as they are turned."""
    first, last = attn.qkv, attn.proj
    qkv = F.linear(given.pop(), first.weight)
    qkv = shaping.turn_patches(qkv, cos, sin, attn.num_heads, first.bias)
    if tower_attention.applies(qkv, attn.num_heads):
        mixed = tower_attention.attend(qkv, attn.num_heads)
    else:
        q, k, v = qkv.unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        del q, k, v
    del qkv
    to.flatten(0, 1).addmm_(mixed.reshape(-1, last.in_features), last.weight.t())


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    exact = x.float() if x.dtype != torch.float64 else x
    first, second = exact.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


def _merge_order(grid: tuple[int, int], merge: int) -> tuple[Tensor, Tensor]:
    """Row and column of every patch, the patches of one vision token next to each other."""
    height, width = grid
    row = torch.arange(height)[:, None].expand(height, width)
    col = torch.arange(width)[None, :].expand(height, width)

    def order(x: Tensor) -> Tensor:
        return x.reshape(height // merge, merge, width // merge, merge).transpose(1, 2).flatten()

    return order(row), order(col)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # else the kept tensors could not be used in training
def _rotation(
    grid: tuple[int, int], head_dim: int, theta: float, merge: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """cos and sin [patches, head_dim / 2] of the two-axis rotary embedding."""
    spatial = head_dim // 2
    inv_freq = 1.0 / (theta ** (torch.arange(0, spatial, 2, dtype=torch.float) / spatial))
    row, col = _merge_order(grid, merge)
    angle = torch.cat((row[:, None] * inv_freq, col[:, None] * inv_freq), dim=-1)
    return angle.cos().to(device), angle.sin().to(device)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # else the kept tensors could not be used in training
def _interpolation(
    grid: tuple[int, int], side: int, merge: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Bilinear resize of the learned side x side positions: indices and shares [patches, 4]."""
    rows, cols = (torch.linspace(0, side - 1, size) for size in grid)
    row, col = _merge_order(grid, merge)
    y, x = rows[row], cols[col]
    y0, x0 = y.int(), x.int()
    y1, x1 = (y0 + 1).clamp(max=side - 1), (x0 + 1).clamp(max=side - 1)
    dy, dx = y - y0, x - x0
    index = torch.stack((y0 * side + x0, y0 * side + x1, y1 * side + x0, y1 * side + x1), dim=-1)
    share = torch.stack(((1 - dy) * (1 - dx), (1 - dy) * dx, dy * (1 - dx), dy * dx), dim=-1)
    return index.long().to(device), share.to(device)
