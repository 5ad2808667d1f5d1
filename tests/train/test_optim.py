"""Groups of parameters, Muon, and masters in float32."""

from __future__ import annotations

import math
from itertools import chain

import pytest
import torch
from torch import nn

from spatial_ttt.errors import ConfigError
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.newton_schulz import plain_newton_schulz
from spatial_ttt.testing.small import small_config, small_model
from spatial_ttt.train.optim import (
    GROUPS,
    Muon,
    OptimConfig,
    SlowWeights,
    matrices,
    parameter_groups,
)


def config(rate: float = 1e-2, **changes) -> OptimConfig:
    values = {
        "learning_rate": dict.fromkeys(GROUPS, rate),
        "weight_decay": 0.1,
        "betas": (0.9, 0.95),
        "max_grad_norm": 1.0,
        "use_muon": True,
    }
    return OptimConfig(**(values | changes))


def names_of(model: nn.Module, wanted: set[int]) -> set[str]:
    return {name for name, p in model.named_parameters() if id(p) in wanted}


def test_every_parameter_is_in_exactly_one_group() -> None:
    model = small_model()
    groups = parameter_groups(model)
    assert tuple(groups) == GROUPS and all(groups.values())
    ids = [id(p) for p in chain(*groups.values())]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in model.parameters()}


def test_groups_hold_what_their_names_say() -> None:
    model = small_model()
    names = {g: names_of(model, {id(p) for p in ps}) for g, ps in parameter_groups(model).items()}
    assert names["head"] == {"model.language_model.embed_tokens.weight"}
    assert names["vision"] == {n for n, _ in model.named_parameters() if ".visual." in n}
    assert {n.split("self_attn.")[1] for n in names["ttt"] if "layers.0." in n} == {
        *(f"conv_{x}.weight" for x in "qkv"),
        *(f"fast_weights.{x}" for x in ("gate", "up", "down")),
        *(f"{x}_{kind}" for x in "qk" for kind in ("scale", "offset")),
        *(
            f"{x}_proj.{kind}"
            for x in ("lr", "momentum", "ttt_scale")
            for kind in ("weight", "bias")
        ),
        "ttt_norm.weight",
    }
    assert all("layers.3." not in n for n in names["ttt"])  # the anchor
    plain = ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")
    assert {f"model.language_model.layers.0.self_attn.{n}.weight" for n in plain} <= names["base"]


def test_the_layer_over_the_vocabulary_is_of_the_head_where_it_is_not_tied() -> None:
    values = small_config().to_dict() | {"tie_word_embeddings": False}
    values["text_config"]["tie_word_embeddings"] = False
    model = SpatialTTTForConditionalGeneration(type(small_config())(**values))
    assert model.lm_head.weight is not model.get_input_embeddings().weight
    head = names_of(model, {id(p) for p in parameter_groups(model)["head"]})
    assert head == {"model.language_model.embed_tokens.weight", "lm_head.weight"}


def test_muon_takes_the_matrices_of_blocks_only() -> None:
    model = small_model()
    groups, chosen = parameter_groups(model), matrices(model)
    allowed = {id(p) for name in ("base", "vision") for p in groups[name] if p.ndim == 2}
    assert chosen <= allowed
    names = names_of(model, chosen)
    assert "model.language_model.layers.0.self_attn.q_proj.weight" in names
    assert "model.language_model.layers.3.mlp.down_proj.weight" in names
    assert any(".visual.blocks." in n for n in names)
    assert not any("pos_embed" in n or "merger" in n for n in names)


def test_muon_is_momentum_orthogonalised_shape_by_shape() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(6, 4), (6, 4), (3, 8)]
    weights = [nn.Parameter(torch.randn(s, generator=generator)) for s in shapes]
    before = [w.detach().clone() for w in weights]
    buffers = [torch.zeros(s) for s in shapes]
    optimizer = Muon(weights, lr=0.1, momentum=0.9, weight_decay=0.5)
    for _ in range(2):
        for n, weight in enumerate(weights):
            weight.grad = torch.randn(shapes[n], generator=generator)
            buffers[n] = 0.9 * buffers[n] + 0.1 * weight.grad
            update = 0.1 * weight.grad + 0.9 * buffers[n]
            direction = plain_newton_schulz(update[None], "bfloat16")[0]
            scale = 0.2 * math.sqrt(max(shapes[n]))
            before[n] = before[n] * (1 - 0.1 * 0.5) - 0.1 * scale * direction
        optimizer.step()
    for weight, expected in zip(weights, before, strict=True):
        # Batches and single matrices round to bfloat16 alike but for the last bit.
        torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=2e-3)
    still = nn.Parameter(torch.ones(2, 2))
    Muon([still], lr=0.1).step()
    assert (still == 1).all()  # without a gradient nothing moves


def loss_of(model: SpatialTTTForConditionalGeneration) -> torch.Tensor:
    ids = torch.arange(30)[None] % 7
    found = model(ids, labels=ids).loss
    assert found is not None
    return found


@pytest.mark.parametrize("use_muon", [True, False])
def test_steps_descend(use_muon: bool) -> None:
    model = small_model()
    slow = SlowWeights(model, config(use_muon=use_muon), torch.float32)
    losses = []
    for _ in range(4):
        loss = loss_of(model)
        loss.backward()
        slow.step(1.0)
        losses.append(loss.item())
        assert all(p.grad is None for p in model.parameters())
    assert losses[-1] < losses[0] - 0.1


def test_the_scale_multiplies_every_rate_and_zero_moves_nothing() -> None:
    model = small_model()
    slow = SlowWeights(model, config(), torch.float32)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    loss_of(model).backward()
    norm = slow.step(0.0)
    assert norm > 0
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    loss_of(model).backward()
    slow.step(0.25)
    rates = {group["lr"] for o in slow.optimizers for group in o.param_groups}
    assert rates == {0.25 * 1e-2}


def test_every_trained_parameter_has_one_optimizer_and_only_matrices_decay() -> None:
    model = small_model()
    slow = SlowWeights(model, config(), torch.float32)
    held = [p for o in slow.optimizers for g in o.param_groups for p in g["params"]]
    assert len({id(p) for p in held}) == len(held) == len(list(model.parameters()))
    for optimizer in slow.optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                assert group["weight_decay"] == (0.1 if parameter.ndim > 1 else 0.0)


def test_a_rate_of_zero_freezes_its_group() -> None:
    model = small_model()
    rates = dict.fromkeys(GROUPS, 1e-2) | {"vision": 0.0, "base": 0.0}
    slow = SlowWeights(model, config(learning_rate=rates), torch.float32)
    groups = parameter_groups(model)
    before = [p.detach().clone() for p in groups["base"]]
    loss_of(model).backward()
    slow.step(1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, groups["base"], strict=True))
    assert not any(p.requires_grad for p in (*groups["base"], *groups["vision"]))
    assert all(p.requires_grad for p in (*groups["ttt"], *groups["head"]))


def test_a_bfloat16_model_computes_with_rounded_copies_of_float32_masters() -> None:
    model = small_model()
    slow = SlowWeights(model, config(rate=1e-5, use_muon=False), torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    before = [master.clone() for master in slow.master]
    for _ in range(3):
        loss_of(model).backward()
        slow.step(1.0)
    assert all(m.dtype == torch.float32 for m in slow.master)
    pairs = list(zip(slow.live, slow.master, strict=True))
    assert all(torch.equal(live, master.bfloat16()) for live, master in pairs)
    # Steps far below bfloat16's resolution add up in the masters.
    moved = [(m - b).abs().max() for m, b in zip(slow.master, before, strict=True)]
    assert sum(1 for m in moved if m > 2e-5) > len(moved) // 2


def test_clipping_bounds_what_one_step_is_given() -> None:
    model = small_model()
    slow = SlowWeights(model, config(max_grad_norm=1e-3), torch.float32)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    norm = slow.step(0.0)
    assert float(norm) == pytest.approx(math.sqrt(sum(p.numel() for p in model.parameters())))


@pytest.mark.parametrize(
    "wrong", [{"learning_rate": {"base": 1.0}}, {"max_grad_norm": 0.0}], ids=str
)
def test_wrong_settings_are_refused(wrong) -> None:
    with pytest.raises(ConfigError, match=r"learning_rate needs exactly|must be positive"):
        config(**wrong)
