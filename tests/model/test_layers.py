"""Small layers against transformers' own, and exact in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.models.qwen3_vl.modeling_qwen3_vl import (
    Qwen3VLTextMLP,
    Qwen3VLTextRMSNorm,
    Qwen3VLTextRotaryEmbedding,
    apply_rotary_pos_emb,
)

from spatial_ttt.model import layers
from spatial_ttt.model.layers import MLP, RMSNorm, RotaryEmbedding, linear_behind, pack, rotate
from spatial_ttt.presets import spatial_ttt_2b
from spatial_ttt.testing.small import small_config
from tests.model.streams import relative


def test_rms_norm():
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0)) * 5
    ours, theirs = RMSNorm(8, 1e-6), Qwen3VLTextRMSNorm(8, 1e-6)
    ours.weight.data = theirs.weight.data = torch.arange(8.0)
    assert torch.equal(ours(x), theirs(x))
    half = x.bfloat16()
    assert torch.equal(ours.bfloat16()(half), theirs.bfloat16()(half))
    exact = x.double()
    expected = (
        exact / (exact.square().mean(-1, keepdim=True) + 1e-6).sqrt() * torch.arange(8.0).double()
    )
    assert relative(ours.double()(exact), expected) <= 1e-14


def test_mlp():
    text = small_config().text_config
    ours, theirs = MLP(text.hidden_size, text.intermediate_size), Qwen3VLTextMLP(text)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 3, text.hidden_size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("config", [small_config(), spatial_ttt_2b()], ids=["small", "2b"])
def test_interleaved_rotation(config):
    text = config.text_config
    g = torch.Generator().manual_seed(0)
    where = torch.randint(0, 5000, (3, 2, 6), generator=g)
    q = torch.randn(2, 4, 6, text.head_dim, generator=g)
    rope = RotaryEmbedding(text)(where, torch.float32)
    cos, sin = Qwen3VLTextRotaryEmbedding(text)(q, where)
    expected, _ = apply_rotary_pos_emb(q, q, cos, sin)
    assert relative(rotate(q, rope), expected) <= 1e-6


def test_only_the_first_channels_turn():
    text = small_config().text_config
    rope = RotaryEmbedding(text)(torch.full((3, 1, 1), 3), torch.float32)
    x = torch.randn(1, 2, 1, 16, generator=torch.Generator().manual_seed(0))
    turned = rotate(x, rope)
    assert torch.equal(turned[..., 8:], x[..., 8:]) and not torch.equal(turned[..., :8], x[..., :8])
    assert torch.equal(turned[..., :8], rotate(x[..., :8], rope))


@torch.no_grad()
@pytest.mark.parametrize("are_kernels_on", [False, True])
def test_an_mlp_adds_to_what_is_there(monkeypatch, are_kernels_on):
    mlp = MLP(6, 10)
    x, hidden = torch.randn(2, 3, 6), torch.randn(2, 3, 6)
    expected = hidden + mlp(x)
    monkeypatch.setattr(layers.shaping, "applies", lambda _: are_kernels_on)
    place = hidden.clone()
    found = mlp.add_to(place, x)
    torch.testing.assert_close(found, expected)
    assert (found.data_ptr() == place.data_ptr()) == are_kernels_on
    assert mlp.add_to(hidden[:, :0], x[:, :0]).shape == (2, 0, 6)


@pytest.mark.parametrize("bias", [False, True])
def test_outputs_of_zeros_change_nothing(monkeypatch, bias):
    """What makes rows of whole 16 bytes on a GPU, on a CPU: outputs and gradients."""
    generator = torch.Generator().manual_seed(0)
    both = [nn.Linear(6, width, bias=bias, dtype=torch.float64) for width in (12, 4, 4)]
    x = torch.randn(2, 5, 6, dtype=torch.float64, generator=generator).requires_grad_()
    leaves = [x, *(p for layer in both for p in layer.parameters())]
    weight = torch.randn(2, 5, 20, dtype=torch.float64, generator=generator)

    def run():
        out = layers.linear_together(nn.Module(), x, both)
        return out, torch.autograd.grad((out * weight).sum(), leaves)

    (expected, wanted), widths = run(), []
    assert expected.is_contiguous()
    linear = torch.nn.functional.linear
    monkeypatch.setattr(layers, "_spare", lambda _, width: -width % 8)
    monkeypatch.setattr(
        layers.F, "linear", lambda x, w, b: widths.append(w.shape[0]) or linear(x, w, b)
    )
    found, got = run()
    assert widths == [24] and found.shape == expected.shape
    for a, b in zip((found, *got), (expected, *wanted), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("is_packed", [False, True])
def test_outputs_stand_behind_those_before(monkeypatch, rows, is_packed):
    monkeypatch.setattr(layers.shaping, "applies", lambda _: True)
    module = nn.Module()
    both = nn.Linear(6, 4, bias=False), nn.Linear(6, 3, bias=False)
    if is_packed:
        pack(module, both)
    x, before = torch.randn(rows, 5, 6), torch.randn(rows, 2, 7)
    found = linear_behind(before, module, x, both)
    expected = torch.cat((before, torch.cat([layer(x) for layer in both], -1)), 1)
    torch.testing.assert_close(found, expected)
