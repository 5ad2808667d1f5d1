"""Weights for training from nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from spatial_ttt.model.ttt import TTTAttention
from spatial_ttt.testing.small import small_model
from spatial_ttt.train.initialise import STD, initialise


def test_a_seed_decides_every_matrix() -> None:
    states = []
    for noise in (0.0, 0.3):  # whatever was there before
        model = small_model(seed=int(10 * noise), noise=noise)
        initialise(model, 5)
        states.append(model.state_dict())
    matrices = {n for n, p in small_model().named_parameters() if p.ndim > 1 and "conv_" not in n}
    assert len(matrices) > 20
    assert all(torch.equal(states[0][name], states[1][name]) for name in matrices)
    initialise(model, 6)
    assert not torch.equal(states[0]["lm_head.weight"], model.state_dict()["lm_head.weight"])


def test_spreads_follow_the_width_and_the_depth() -> None:
    model = small_model()
    initialise(model, 0)
    layer = model.decoder.layers[0]
    usual = 1 / math.sqrt(3 * 32)
    assert float(layer.mlp.gate_proj.weight.detach().std()) == pytest.approx(usual, rel=0.1)
    assert float(layer.self_attn.o_proj.weight.detach().std()) == pytest.approx(
        usual / math.sqrt(8), rel=0.1
    )
    deep = 1 / math.sqrt(3 * 48) / math.sqrt(8)
    assert float(layer.mlp.down_proj.weight.detach().std()) == pytest.approx(deep, rel=0.1)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert float(model.lm_head.weight.detach().std()) == pytest.approx(usual, rel=0.1)
    positions = model.model.visual.pos_embed.weight
    assert float(positions.detach().std()) == pytest.approx(STD, rel=0.15)
    biases = [m.bias for m in model.modules() if isinstance(m, nn.Linear) and m.bias is not None]
    assert biases and not any(bias.any() for bias in biases)


@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_the_gate_is_open_as_far_as_asked(bias: float) -> None:
    model = small_model()
    initialise(model, 0, bias)
    layers = [m for m in model.modules() if isinstance(m, TTTAttention)]
    assert len(layers) == 3
    for attention in layers:
        assert attention.ttt_scale_proj is not None
        assert not attention.ttt_scale_proj.weight.any()
        assert (attention.ttt_scale_proj.bias == bias).all()
        fast = attention.fast_weights.up
        assert float(fast.detach().std()) == pytest.approx(fast.shape[-1] ** -0.5, rel=0.15)
