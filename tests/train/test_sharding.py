"""Who trains at which rate: by module type, convolutions with the TTT branch, towers of large models frozen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.distributed.fsdp import FSDPModule

from spatial_ttt.testing.small import small_model, small_processor
from spatial_ttt.train import sharding
from spatial_ttt.train.distributed import local, processes, whole
from spatial_ttt.train.lora import add_lora
from spatial_ttt.train.optim import parameter_groups
from spatial_ttt.train.packed import PackedModel
from spatial_ttt.train.run_config import LoraConfig
from spatial_ttt.train.sharding import freeze, resolve_rates, shard

RATES = {"base": 1e-6, "ttt": 1e-5}


def test_rates_that_are_not_named_follow_the_models_size(monkeypatch):
    small = small_model()
    everything = {"base": 1e-6, "ttt": 1e-5, "head": 1e-6, "vision": 1e-6}
    assert resolve_rates(small, RATES, uses_lora=False) == everything
    assert resolve_rates(small, RATES | {"head": 0.0}, uses_lora=False)["head"] == 0.0
    assert resolve_rates(small, RATES, uses_lora=True) == everything | {"head": 0.0, "vision": 0.0}
    monkeypatch.setattr(sharding, "SMALL_MODEL", 1000)
    assert resolve_rates(small, RATES, uses_lora=False)["vision"] == 0.0
    assert resolve_rates(small, RATES | {"vision": 1e-7}, uses_lora=False)["vision"] == 1e-7


def test_groups_are_by_module_type():
    model = small_model()
    names = {id(p): n for n, p in model.named_parameters()}
    groups = {g: {names[id(p)] for p in members} for g, members in parameter_groups(model).items()}
    assert sum(map(len, groups.values())) == len(names)
    ttt = {n.rsplit("self_attn.")[-1] for n in groups["ttt"]}
    added = {"fast_weights.gate", "fast_weights.up", "fast_weights.down", "q_scale", "k_scale", "q_offset",
             "k_offset", "lr_proj.weight", "lr_proj.bias", "momentum_proj.weight", "momentum_proj.bias",
             "ttt_scale_proj.weight", "ttt_scale_proj.bias", "ttt_norm.weight", "conv_q.weight",
             "conv_k.weight", "conv_v.weight"}  # fmt: skip
    assert ttt == added
    assert groups["vision"] == {n for n in names.values() if ".visual." in n}
    assert groups["head"] == {"model.language_model.embed_tokens.weight"}


def test_freezing():
    model = small_model()
    freeze(model, {"base": 0.0, "ttt": 1.0, "head": 0.0, "vision": 0.0})
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    added = {id(p) for p in parameter_groups(model)["ttt"]}
    assert trained == {n for n, p in model.named_parameters() if id(p) in added}
    model = small_model()
    add_lora(model, LoraConfig(rank=2), 0)
    freeze(model, {"base": 1.0, "ttt": 0.0, "head": 0.0, "vision": 0.0})
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in n for n in trained)


@pytest.mark.parametrize("vision", [0.0, 1.0])
@pytest.mark.parametrize("world", [1, 2])
def test_masters_are_float32_and_frozen_towers_are_not_dealt_out(vision, world):
    """What one of two processes does is done here by a single one: shares are whole then, too."""
    model = small_model()
    freeze(model, {"base": 1.0, "ttt": 1.0, "head": 1.0, "vision": vision})
    packed = PackedModel(model, small_processor(), 0)
    with processes("cpu") as group:
        shard(packed, replace(group, world=world), torch.bfloat16)
        for name, parameter in model.named_parameters():
            is_frozen = ".visual." in name and not vision
            assert parameter.dtype == (torch.bfloat16 if is_frozen else torch.float32), name
            assert hasattr(parameter, "full_tensor") == (world > 1 and not is_frozen)
            assert whole(parameter).shape == local(parameter).shape
        dealt = {isinstance(layer, FSDPModule) for layer in model.decoder.layers}
        assert dealt == {world > 1}, "one process deals nothing out"
        assert packed.touch_all == (world > 1)


@pytest.mark.parametrize("trained", [False, True])
def test_only_what_is_derived_of_a_frozen_tower_is_kept(trained):
    model = small_model()
    rates = {"base": 1.0, "ttt": 1.0, "head": 1.0, "vision": float(trained)}
    freeze(model, rates)
    with processes("cpu") as group:
        shard(PackedModel(model, small_processor(), 0), group, torch.float32)
    assert {"packed" in block.attn.__dict__ for block in model.model.visual.blocks} == {not trained}
