"""One TTT layer: the equations of the paper in the order they are written, against loops of our own."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spatial_ttt.model import fast_weights as fw
from spatial_ttt.model.configuration import paper_ttt_config
from spatial_ttt.model.layers import RotaryEmbedding, rotate
from spatial_ttt.model.layout import num_tokens, positions, slot, text
from spatial_ttt.model.state import Raw, Tokens
from spatial_ttt.model.ttt import TTTAttention
from tests.model.streams import relative, video
from tests.model.test_attention import by_loops
from tests.model.test_fast_weights import by_hand

SIZES = SimpleNamespace(
    hidden_size=24,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=4,
    attention_bias=False,
    rms_norm_eps=1e-6,
    rope_parameters={"rope_theta": 1e4, "mrope_section": [1, 1, 0]},
)


def layer_of(**changes) -> TTTAttention:
    rule = {
        "num_fast_heads": 2,
        "chunk_size": 7,
        "window_size": 9,
        "newton_schulz_dtype": "float32",
    }
    torch.manual_seed(0)
    layer = TTTAttention(SIZES, paper_ttt_config(**(rule | changes))).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return layer


def projected(layer, tokens):
    raw = Raw(
        layer.project(tokens.hidden),
        torch.cat([f(tokens.hidden) for f in layer.rate_layers], dim=-1),
    )
    return layer.shape(raw, tokens.rope)


def tokens_of(layout, batch: int = 1) -> Tokens:
    g = torch.Generator().manual_seed(3)
    x = torch.randn(batch, num_tokens(layout), 24, generator=g, dtype=torch.float64)
    where, _ = positions(layout, 0)
    rope = RotaryEmbedding(SIZES)(where[:, None].expand(-1, batch, -1), torch.float64)
    return Tokens(x, rope, None, layout)


def conv(x: Tensor, weight: Tensor, layout, grids) -> Tensor:
    """Every video [t, h, w] through torch's Conv3d, other tokens as they are."""
    out, starts, at = x.clone(), [], 0
    for run in layout:
        starts += [at] if run.grid != (0, 0) else []
        at += run.length
    for t, h, w in grids:
        index = torch.cat([torch.arange(s, s + h * w) for s in starts[:t]])
        starts = starts[t:]
        module = nn.Conv3d(24, 24, 3, padding=1, padding_mode="replicate", groups=24, bias=False)
        module.weight.data = weight
        block = x[:, index].transpose(1, 2).unflatten(2, (t, h, w))
        out[:, index] = module(block).flatten(2).transpose(1, 2)
    return out


def reference(layer: TTTAttention, tokens: Tokens, grids) -> Tensor:
    """Section 3 of the paper, step by step."""
    x, config = tokens.hidden, layer.config

    def per_head(t: Tensor, norm: nn.Module) -> Tensor:
        heads = t.unflatten(-1, (-1, 4))
        return heads / (heads.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight

    q, k = per_head(layer.q_proj(x), layer.q_norm), per_head(layer.k_proj(x), layer.k_norm)
    v = layer.v_proj(x).unflatten(-1, (-1, 4))
    turned = [rotate(t.transpose(1, 2), tokens.rope) for t in (q, k)]
    window = by_loops(*turned, v.transpose(1, 2), config.window_size).transpose(1, 2).flatten(2)

    kk, vv = (t.repeat_interleave(3, dim=2).flatten(2) for t in (k, v))
    branch = [
        q.flatten(2) * layer.q_scale + layer.q_offset,
        kk * layer.k_scale + layer.k_offset,
        vv,
    ]
    if config.convolution == "centred":
        kernels = (layer.conv_q.weight, layer.conv_k.weight, layer.conv_v.weight)
        branch = [conv(t, w, tokens.layout, grids) for t, w in zip(branch, kernels, strict=True)]
    fast = [F.silu(t.unflatten(-1, (2, 12)).transpose(1, 2)) for t in branch]
    for i in (0, 1):
        fast[i] = rotate(fast[i] / (fast[i].norm(dim=-1, keepdim=True) + 1e-5), tokens.rope)
    lr = (
        F.softplus(layer.lr_proj(x) + math.log(math.expm1(0.001)))
        .unflatten(-1, (2, 3))
        .transpose(1, 2)
    )
    beta = torch.sigmoid(layer.momentum_proj(x)).transpose(1, 2)
    gate = F.silu(layer.ttt_scale_proj(x))
    read, _ = by_hand(fw.FastInputs(*fast, lr, beta), layer.fast_weights.initial(), config)
    normed = read / (read.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.ttt_norm.weight
    memory = (normed.transpose(1, 2) * gate[..., None]).flatten(2)
    return layer.o_proj(window + memory)


@pytest.mark.parametrize(
    "rule",
    [{}, {"norm_placement": "pre"}, {"use_muon": False}, {"convolution": "none"}, {"low_rank": 2}],
    ids=["paper", "pre", "no muon", "no convolution", "low rank"],
)
@torch.no_grad()
def test_the_layer_is_the_written_equations(rule):
    layer = layer_of(**rule)
    layout = (text(3), *video((2, 2), 3), text(2), *video((1, 3), 2, 0), text(6))
    tokens = tokens_of(layout, batch=2)
    ready, out, _ = layer(tokens.hidden, tokens, None)
    with torch.enable_grad():
        expected = reference(layer, tokens, [(3, 2, 2), (2, 1, 3)]).detach()
    assert ready.length == tokens.length and relative(out, expected) <= 1e-10


@torch.no_grad()
def test_a_causal_convolution_reads_two_slots_back():
    layer = layer_of(convolution="causal", window_size=64, chunk_size=64)
    layout = (slot(1, 2),) * 5
    tokens = tokens_of(layout)
    _, out, state = layer(tokens.hidden, tokens, None)
    assert out.shape[1] == 10 and state.held is None and state.context.slots.shape[1] == 2
    weight = torch.cat((layer.conv_q.weight, layer.conv_k.weight, layer.conv_v.weight))
    fast = projected(layer, tokens).fast.unflatten(1, (5, 1, 2))
    padded = torch.cat((fast[:, :1], fast[:, :1], fast), 1)
    expected = F.conv3d(
        F.pad(padded.movedim(-1, 1), (1, 1, 1, 1, 0, 0), mode="replicate"), weight, groups=72
    )
    from spatial_ttt.model.holding import plan

    got, _ = layer.convolve(projected(layer, tokens).fast, plan(layout, None, "causal"), None)
    assert relative(got, expected.movedim(1, -1).flatten(1, 3)) <= 1e-12


@torch.no_grad()
def test_a_closed_gate_leaves_window_attention_alone():
    layer = layer_of()
    layer.ttt_scale_proj.weight.zero_()
    layer.ttt_scale_proj.bias.zero_()
    tokens = tokens_of((text(20),))
    _, out, _ = layer(tokens.hidden, tokens, None)
    q, k, v = (t.transpose(1, 2) for t in layer.normed(layer.project(tokens.hidden)))
    expected = by_loops(rotate(q, tokens.rope), rotate(k, tokens.rope), v, 9)
    assert relative(out, layer.o_proj(expected.transpose(1, 2).flatten(2))) <= 1e-12


@torch.no_grad()
def test_without_a_gate_and_without_momentum():
    layer = layer_of(use_gate=False, use_momentum=False)
    names = {name.split(".")[0] for name, _ in layer.named_parameters()}
    assert not names & {"ttt_scale_proj", "momentum_proj"}
    tokens = tokens_of((text(20),))
    assert bool((projected(layer, tokens).gate == 1).all())
    _, _, state = layer(tokens.hidden, tokens, None)
    assert state.fast.momentum is None


@torch.no_grad()
def test_bfloat16_activations_keep_float32_memory():
    layer = layer_of().bfloat16()
    tokens = tokens_of((text(20),))
    tokens = tokens._replace(hidden=tokens.hidden.bfloat16(), rope=tokens.rope.bfloat16())
    _, out, state = layer(tokens.hidden, tokens, None)
    assert out.dtype == torch.bfloat16 and state.window[0].dtype == torch.bfloat16
    assert {t.dtype for t in (*state.fast.weights, *state.fast.momentum)} == {torch.float32}


@torch.no_grad()
def test_a_fresh_learning_rate_is_the_base_rate():
    layer = layer_of(base_lr=0.003)
    layer.lr_proj.weight.zero_()
    layer.lr_proj.bias.zero_()
    lr = projected(layer, tokens_of((text(4),))).lr
    assert relative(lr, torch.full_like(lr, 0.003)) <= 1e-9
