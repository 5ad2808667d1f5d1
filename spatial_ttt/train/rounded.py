"""Weights of a process that shares them with no other: float32 masters, and rounded copies that the model runs with.

FSDP of one process copies every weight twice and every gradient three times a pack. Here a step's first pack rounds the
weights, and gradients are summed where the optimizer reads them.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd import Variable

LARGE = 1 << 18
"""Elements of a gradient that is handed over as soon as it is there: one so large keeps a device busy."""


class RoundedCopies:
    """Trained parameters of a module in the compute precision, in the masters' places while the module runs.

    A backward pass leaves its gradients with the masters, summed in their precision. As long as there are any, a step
    is under way and the copies stay as they are.
    """

    def __init__(self, module: nn.Module, precision: torch.dtype) -> None:
        self._masters = [p for p in module.parameters() if p.requires_grad]
        self._copies = [nn.Parameter(p.detach().to(precision)) for p in self._masters]
        self._desk = _Desk()
        for copy, master in zip(self._copies, self._masters, strict=True):
            copy.register_post_accumulate_grad_hook(partial(self._desk.take, master))
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
        self._desk.clear()
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


class _Desk:
    """Where gradients of copies are handed over to masters: large ones one by one, all others of a pass together.

    Autograd calls `take` on the stream on which it summed a gradient, and what waits for the end of the pass on the
    stream on which the pass was begun, after that one waits for all others (torch's Note "Streaming backwards").
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[nn.Parameter, Tensor]] = []

    def clear(self) -> None:
        """Forget what a pass that failed has left."""
        self._waiting.clear()

    def take(self, master: nn.Parameter, copy: Tensor) -> None:
        """Take the copy's gradient, for the master."""
        grad, copy.grad = copy.grad, None
        if grad is None:
            return
        if grad.numel() < LARGE:
            if not self._waiting:
                Variable._execution_engine.queue_callback(self._hand_over)
            self._waiting.append((master, grad))
        elif master.grad is None:
            master.grad = grad.to(master.dtype)
        else:
            master.grad.add_(grad)

    @torch.no_grad()
    def _hand_over(self) -> None:
        """Add all that wait to their masters' gradients, in a few launches."""
        masters, grads = [m for m, _ in self._waiting], [g for _, g in self._waiting]
        self._waiting.clear()
        if grads[0].is_cuda:
            here = torch.cuda.current_stream(grads[0].device)
            for grad in grads:
                # Memory of another stream might be given out there while it is read here.
                grad.record_stream(here)
        wide = [torch.empty_like(master) for master in masters]
        torch._foreach_copy_(wide, grads)
        sums, more = [], []
        for master, grad in zip(masters, wide, strict=True):
            if master.grad is None:
                master.grad = grad
            else:
                sums.append(master.grad)
                more.append(grad)
        if sums:
            torch._foreach_add_(sums, more)
