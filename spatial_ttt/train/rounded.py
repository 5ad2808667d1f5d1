"""Weights of a process that shares them with no other: float32 masters, and rounded copies that the model runs with.

FSDP of one process copies every weight twice and every gradient three times a pack. Here a step's first pack rounds the
weights, and gradients are summed where the optimizer reads them.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn


class RoundedCopies:
    """Trained parameters of a module in the compute precision, in the masters' places while the module runs.

    A backward pass leaves its gradients with the masters, summed in their precision. As long as there are any, a step
    is under way and the copies stay as they are.
    """

    def __init__(self, module: nn.Module, precision: torch.dtype) -> None:
        self._masters = [p for p in module.parameters() if p.requires_grad]
        self._copies = [nn.Parameter(p.detach().to(precision)) for p in self._masters]
        for copy, master in zip(self._copies, self._masters, strict=True):
            copy.register_post_accumulate_grad_hook(partial(_hand_over, master))
        number = {p: n for n, p in enumerate(self._masters)}
        self._places = [
            (owner, name, number[p])
            for owner in module.modules()
            for name, p in owner.named_parameters(recurse=False, remove_duplicate=False)
            if p in number
        ]
        self._are_used = False

    @torch.no_grad()
    def use(self) -> None:
        """Put the copies into the masters' places, made anew unless a step is under way."""
        if all(master.grad is None for master in self._masters):
            torch._foreach_copy_([*self._copies], [*self._masters])
        if not self._are_used:
            self._fill(self._copies)
            self._are_used = True

    def put_masters_back(self) -> None:
        """The module holds its masters again."""
        if self._are_used:
            self._fill(self._masters)
            self._are_used = False

    def _fill(self, parameters: list[nn.Parameter]) -> None:
        for owner, name, number in self._places:
            setattr(owner, name, parameters[number])


def _hand_over(master: nn.Parameter, copy: Tensor) -> None:
    """Add the copy's gradient to the master's."""
    if copy.grad is None:
        return
    if master.grad is None:
        master.grad = copy.grad.to(master.dtype)
    else:
        master.grad.add_(copy.grad)
    copy.grad = None
