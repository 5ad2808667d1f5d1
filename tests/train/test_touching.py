"""Gradients of zero for what nothing else uses."""

from __future__ import annotations

import torch

from spatial_ttt.train.touching import touch


def test_every_parameter_gets_a_gradient_and_nothing_else_changes() -> None:
    x = torch.tensor([2.0], requires_grad=True)
    unused = torch.ones(2, 3, requires_grad=True)
    (3 * touch(x, (unused,))).sum().backward()
    assert x.grad is not None and x.grad.item() == 3
    assert unused.grad is not None and torch.equal(unused.grad, torch.zeros(2, 3))
    assert touch(x, ()) is x
