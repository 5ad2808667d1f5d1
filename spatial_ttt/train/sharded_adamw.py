"""AdamW over shares: every process updates what it holds, one all-reduce finds the gradients' norm.

All trained parameters have a gradient at every update: of zero where no sample used them, which `PackedModel` sees to
on several processes and `normalise` on one. So one count of updates stands for all, and the update is the same on any
number of processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from spatial_ttt.train.distributed import Processes, local
from spatial_ttt.train.optim import parameter_groups
from spatial_ttt.train.run_config import RatesConfig

EPS = 1e-8


@dataclass(frozen=True)
class RateGroup:
    """Parameters that share a rate and a decay."""

    name: str
    parameters: tuple[nn.Parameter, ...]
    peak: float
    weight_decay: float


class ShardedAdamW:
    """Moments in float32, dealt out as the parameters are."""

    def __init__(
        self, groups: Iterable[RateGroup], config: RatesConfig, processes: Processes
    ) -> None:
        self.groups = tuple(groups)
        self._config = config
        self._processes = processes
        self._first = {p: torch.zeros_like(p.detach()) for p in self.parameters}
        self._second = {p: torch.zeros_like(p.detach()) for p in self.parameters}
        self.updates = torch.zeros((), dtype=torch.float32, device=processes.device)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Everything that is trained."""
        return [p for group in self.groups for p in group.parameters]

    def moments(self, parameter: nn.Parameter) -> tuple[Tensor, Tensor]:
        """Running mean of a parameter's gradients, and of their squares."""
        return self._first[parameter], self._second[parameter]

    @torch.no_grad()
    def normalise(self, divisor: float) -> float:
        """Divide the gradients and clip them; returns their norm in between."""
        if self._processes.world == 1:
            for parameter in self.parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        grads = [local(p.grad) for p in self.parameters if p.grad is not None]
        assert len(grads) == len(self.parameters), "a trained parameter has no gradient"
        norms = torch.stack(torch._foreach_norm(grads))
        squares = self._processes.sum(norms.double().square().sum())
        norm = float(squares.sqrt()) / divisor
        shrink = min(1.0, self._config.max_grad_norm / (norm + 1e-6))
        torch._foreach_mul_(grads, shrink / divisor)
        return norm

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """One update at `scale` times the peak rates; gradients are used up."""
        self.updates += 1
        is_cuda = self._processes.device.type == "cuda"
        for group in self.groups:
            held = [p for p in group.parameters if p.grad is not None and local(p).numel()]
            adamw(
                [local(p) for p in held],
                [local(p.grad) for p in held if p.grad is not None],
                [local(self._first[p]) for p in held],
                [local(self._second[p]) for p in held],
                [],
                list((self.updates - 1).repeat(len(held)).unbind()),  # it counts by itself
                foreach=not is_cuda,
                fused=is_cuda,
                amsgrad=False,
                beta1=self._config.betas[0],
                beta2=self._config.betas[1],
                lr=group.peak * scale,
                weight_decay=group.weight_decay,
                eps=EPS,
                maximize=False,
            )
        self.drop_gradients()

    def drop_gradients(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None


def rate_groups(
    model: nn.Module, config: RatesConfig, rates: Mapping[str, float]
) -> list[RateGroup]:
    """The trained parameters by module type; vectors have no decay."""
    groups = []
    for name, members in parameter_groups(model).items():
        trained = [p for p in members if p.requires_grad]
        for kind, decay in (("matrices", config.weight_decay), ("vectors", 0.0)):
            chosen = tuple(p for p in trained if (p.ndim > 1) == (kind == "matrices"))
            if chosen:
                groups.append(RateGroup(f"{name} {kind}", chosen, rates[name], decay))
    return groups
