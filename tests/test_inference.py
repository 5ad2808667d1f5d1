"""Preparing a model lays its weights out anew and changes nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from spatial_ttt.errors import ConfigError
from spatial_ttt.inference import last_slots, prepare
from spatial_ttt.model.anchor import Attention
from spatial_ttt.model.layers import MLP, pack
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.ttt import TTTAttention
from spatial_ttt.testing.small import small_model
from spatial_ttt.train.lora import add_lora
from spatial_ttt.train.run_config import LoraConfig
from tests.model.streams import push, random_stream, same_bits, video


class SaysCuda(SpatialTTTForConditionalGeneration):
    """A model on the CPU that believes to be on a GPU: preparing it needs none."""

    @property
    def device(self) -> torch.device:
        return torch.device("cuda")


def copied(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in state.items()}


def on_gpu(**ttt: Any) -> SpatialTTTForConditionalGeneration:
    model = small_model(**ttt)
    model.__class__ = SaysCuda
    return model


def test_without_a_gpu_nothing_is_done():
    model = small_model()
    before = {name: p.data_ptr() for name, p in model.named_parameters()}
    prepare(model)
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == before
    assert not any("packed" in module.__dict__ for module in model.modules())


@torch.no_grad()
@pytest.mark.parametrize("rule", [{}, {"use_momentum": False, "use_gate": False}])
def test_names_shapes_values_and_outputs_stay(rule):
    model = on_gpu(**rule)
    before = copied(model.state_dict())
    stream = random_stream(model, video((2, 2), 3))
    out, state = push(model, stream)
    prepare(model)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    again, same = push(model, stream)
    assert torch.equal(again, out) and same_bits(same, state)


def test_every_group_of_layers_shares_a_buffer():
    model = on_gpu()
    prepare(model)
    packed = 0
    for module in model.decoder.modules():
        groups: list[tuple[nn.Linear, ...]] = []
        if isinstance(module, MLP):
            groups.append((module.gate_proj, module.up_proj))
        if isinstance(module, Attention):
            groups.append((module.q_proj, module.k_proj, module.v_proj))
        if isinstance(module, TTTAttention):
            groups.append(module.rate_layers)
        for group in groups:
            packed += 1
            owners = {layer.weight.untyped_storage().data_ptr() for layer in group}
            assert len(owners) == 1, "one buffer, nothing held twice"
    assert packed == 4 * 2 + 3


def test_a_model_with_adapters_is_refused_on_a_gpu_only():
    model = small_model()
    add_lora(model, LoraConfig(rank=2), 0)
    prepare(model)
    model.__class__ = SaysCuda
    with pytest.raises(ConfigError, match="merge them into the weights first"):
        prepare(model)


@pytest.mark.parametrize("bias", [True, False])
def test_pack_lays_weights_below_each_other(bias):
    holder = nn.Module()
    layers = [nn.Linear(6, size, bias=bias) for size in (4, 2, 3)]
    holder.layers = nn.ModuleList(layers)
    before = copied(holder.state_dict())
    packed = pack(holder, layers)
    assert packed.weight.shape == (9, 6) and (packed.bias is None) != bias
    for name, value in holder.state_dict().items():
        assert torch.equal(value, before[name]) and value.shape == before[name].shape
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    together = F.linear(x, packed.weight, packed.bias)
    torch.testing.assert_close(together, torch.cat([layer(x) for layer in layers], dim=-1))
    with torch.no_grad():
        layers[1].weight.fill_(7.0)  # as loading other weights does
    assert torch.equal(packed.weight[4:6], torch.full((2, 6), 7.0))
    holder.to(torch.float64)
    assert layers[0].weight.data_ptr() != packed.weight.data_ptr(), "moved: the buffer is stale"


@pytest.mark.gpu
@torch.no_grad()
def test_a_prepared_model_says_the_same():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    model = small_model().to("cuda", torch.bfloat16)
    stream = random_stream(model.cpu(), video((2, 2), 3))
    model = model.to("cuda")
    stream = stream._replace(hidden=stream.hidden.cuda(), deepstack=stream.deepstack.cuda())
    expected, _ = push(model, stream)
    prepare(model)
    found, _ = push(model, stream)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


def test_the_last_piece_is_half_of_one_and_leaves_room_for_what_layers_held_back():
    config = small_model().config
    late = config.ttt_config.layer_types(config.text_config.num_hidden_layers).count("ttt")
    assert late > 1
    assert last_slots(64, config) == 32
    assert last_slots(2 * late - 2, config) == late - 2
    assert last_slots(late, config) == last_slots(1, config) == 1
