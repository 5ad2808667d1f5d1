"""The optimizer: torch's AdamW on what every process holds, gradients normalised and clipped first."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from spatial_ttt.testing.small import small_model
from spatial_ttt.train.distributed import processes
from spatial_ttt.train.run_config import RatesConfig
from spatial_ttt.train.sharded_adamw import RateGroup, ShardedAdamW, rate_groups

CONFIG = RatesConfig(learning_rate={"base": 1e-2, "ttt": 1e-1}, weight_decay=0.1, max_grad_norm=0.5)


def parameters(seed: int) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [
        nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((4, 3), (5,), (2, 2))
    ]


def test_updates_are_adamws():
    ours, theirs = parameters(0), parameters(0)
    reference = torch.optim.AdamW(
        [{"params": theirs[:1], "lr": 1e-2, "weight_decay": 0.1},
         {"params": theirs[1:], "lr": 1e-1, "weight_decay": 0.0}], betas=CONFIG.betas,
    )  # fmt: skip
    peaks = [group["lr"] for group in reference.param_groups]
    with processes("cpu") as group:
        groups = [
            RateGroup("a", tuple(ours[:1]), 1e-2, 0.1),
            RateGroup("b", tuple(ours[1:]), 1e-1, 0.0),
        ]
        optimizer = ShardedAdamW(groups, CONFIG, group)
        for step, scale in enumerate((0.5, 1.0, 0.7)):
            for mine, other, grad in zip(ours, theirs, parameters(10 + step), strict=True):
                mine.grad = grad.detach().clone()
                other.grad = grad.detach().clone() / 8.0
            norm = nn.utils.clip_grad_norm_(theirs, 0.5)
            assert optimizer.normalise(8.0) == pytest.approx(float(norm), rel=1e-5)
            for peak, entry in zip(peaks, reference.param_groups, strict=True):
                entry["lr"] = peak * scale
            reference.step()
            optimizer.step(scale)
        assert int(optimizer.updates) == 3 and all(p.grad is None for p in ours)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


def test_small_gradients_are_not_scaled_up():
    weights = parameters(0)
    with processes("cpu") as group:
        optimizer = ShardedAdamW([RateGroup("a", tuple(weights), 1.0, 0.0)], CONFIG, group)
        for p in weights:
            p.grad = torch.full_like(p, 1e-3)
        optimizer.normalise(1.0)
        assert all(bool((p.grad == 1e-3).all()) for p in weights)


def test_what_no_sample_used_has_a_gradient_of_zero_and_several_processes_see_to_it_themselves():
    weights = parameters(0)
    with processes("cpu") as group:
        optimizer = ShardedAdamW([RateGroup("a", tuple(weights), 1.0, 0.0)], CONFIG, group)
        weights[0].grad = torch.ones_like(weights[0])
        assert optimizer.normalise(1.0) == pytest.approx(12**0.5)
        assert not any(p.grad is None or p.grad.any() for p in weights[1:])
        several = replace(group, world=2)
        with pytest.raises(AssertionError, match="has no gradient"):
            ShardedAdamW(
                [RateGroup("a", tuple(parameters(1)), 1.0, 0.0)], CONFIG, several
            ).normalise(1.0)


def test_vectors_do_not_decay_and_groups_have_their_rates():
    rates = {"base": 1e-6, "ttt": 1e-5, "head": 2e-6, "vision": 3e-6}
    groups = rate_groups(small_model(), CONFIG, rates)
    for group in groups:
        name, kind = group.name.split()
        assert group.peak == rates[name]
        assert group.weight_decay == (0.1 if kind == "matrices" else 0.0)
        assert all((p.ndim > 1) == (kind == "matrices") for p in group.parameters)
    assert {group.name.split()[0] for group in groups} == set(rates)
