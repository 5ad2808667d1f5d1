"""Who trains at which rate: by module type, convolutions with the TTT branch, towers of large models frozen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.distributed.fsdp import FSDPModule

from spatial_ttt.model.layout import END, join_all, slot, text
from spatial_ttt.testing.small import small_model, small_processor
from spatial_ttt.train import sharding
from spatial_ttt.train.conversation import Encoded
from spatial_ttt.train.dataset import LoadedSample
from spatial_ttt.train.distributed import local, processes, whole
from spatial_ttt.train.lora import add_lora
from spatial_ttt.train.optim import parameter_groups
from spatial_ttt.train.packed import PackedModel
from spatial_ttt.train.run_config import Gathered, LoraConfig
from spatial_ttt.train.sharding import begin_pack, freeze, reshard, resolve_rates, shard

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
    assert ("packed" in model.model.visual.blocks[0].attn.__dict__) == (not trained)


def clip() -> LoadedSample:
    """Slots of noise, and words behind them that are to be told."""
    torch.manual_seed(1)
    layout = join_all([(text(1), slot(1, 2), slot(1, 2), END), (text(30),)])
    ids = torch.randint(1, 200, (35,)).tolist()
    frames = torch.randint(0, 256, (4, 16, 32, 3), dtype=torch.uint8)
    return LoadedSample("clip", Encoded(ids, [False] * 5 + [True] * 30, layout), (frames,))


def gradients_of_two_steps(
    gathered: Gathered, precision: torch.dtype, trained: str, packs: list[list[LoadedSample]]
) -> dict[str, torch.Tensor]:
    """Of one of two processes, as above; the parameters stay as they are."""
    torch.manual_seed(0)
    model = small_model(chunk_size=8, window_size=8).float()
    rates = {"base": 1.0, "ttt": 1.0, "head": 1.0, "vision": 1.0}
    if trained == "lora":
        add_lora(model, LoraConfig(rank=2), 0)
        rates |= {"head": 0.0, "vision": 0.0}
    elif trained == "vision":
        rates |= {"base": 0.0, "ttt": 0.0, "head": 0.0}
    freeze(model, rates)
    packed = PackedModel(model.train(), small_processor((16, 32)), 2)
    with processes("cpu") as group:
        shard(packed, replace(group, world=2), precision, gathered)
        for _ in range(2):
            packed.zero_grad()
            for number, pack in enumerate(packs):
                begin_pack(packed, number, len(packs))
                packed(pack).loss.backward()
            reshard(packed)
            with torch.no_grad():
                packed(packs[-1])  # as a look at held-out samples
            reshard(packed)
        named = model.named_parameters()
        found = {n: None if p.grad is None else local(p.grad) for n, p in named if p.requires_grad}
    assert None not in found.values(), "every process needs a gradient of every parameter"
    return {name: grad.clone() for name, grad in found.items() if grad is not None}


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("trained", ["all", "lora", "vision"])
@pytest.mark.parametrize("order", ["_c", "c_", "__"])
def test_gradients_do_not_depend_on_how_often_they_are_dealt_out(precision, trained, order):
    """Clips, and packs without samples, which leave parameters unused."""
    packs = [[clip()] if kind == "c" else [] for kind in order]
    ways: tuple[Gathered, ...] = ("step", "layer")
    found, expected = (gradients_of_two_steps(way, precision, trained, packs) for way in ways)
    assert found.keys() == expected.keys() and found
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-6, atol=1e-9, msg=name)
    assert any(grad.any() for grad in found.values()) == ("c" in order)
