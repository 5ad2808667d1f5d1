"""Alone, ranks change nothing; what several do together is proved by a run of two in test_tiny."""

from __future__ import annotations

import torch
from torch import nn

from spatial_ttt.train.ranks import Ranks, joined
from spatial_ttt.train.tiny import parse


def test_one_process_is_the_first_and_agrees_with_itself() -> None:
    chosen = parse(["--work", "here"])
    with joined(chosen) as ranks:
        assert ranks.is_first and ranks.world == 1
        assert ranks.agree(0.25, 3.0) == (0.25, 3.0)
    assert str(chosen.work) == "here" and chosen.device == "auto"


def test_alone_nothing_is_exchanged() -> None:
    module = nn.Linear(2, 2)
    before = module.weight.detach().clone()
    gradients = [torch.ones(3), torch.full((2, 2), 4.0)]
    ranks = Ranks()
    ranks.share(module)
    ranks.average(gradients)
    ranks.check_alike(module)
    assert torch.equal(module.weight, before)
    assert gradients[0].tolist() == [1.0] * 3 and bool((gradients[1] == 4.0).all())
