"""Plain data parallelism: every process has the model and its own clips; gradients are averaged.

Alone, all of this does nothing.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from spatial_ttt.errors import DataError
from spatial_ttt.train.distributed import processes


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those of a run."""

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """The process that probes, saves and reports."""
        return self.rank == 0

    def agree(self, *values: float) -> tuple[float, ...]:
        """What the first process says."""
        if self.world == 1:
            return values
        told = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(told, 0)
        return tuple(told.tolist())

    def all_say(self, *flags: bool) -> tuple[bool, ...]:
        """Which of the flags are set in every process."""
        if self.world == 1:
            return flags
        told = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(told, dist.ReduceOp.MIN)
        return tuple(told.bool().tolist())

    def share(self, module: nn.Module) -> None:
        """Give every process the first one's weights."""
        if self.world > 1:
            for tensor in (*module.parameters(), *module.buffers()):
                dist.broadcast(tensor.detach(), 0)

    def check_alike(self, module: nn.Module) -> None:
        """Raise DataError, in every process, if weights have drifted apart: averages must keep them equal."""
        if self.world == 1:
            return
        names, alike = [], []
        for name, tensor in module.named_parameters():
            first = tensor.detach().clone()
            dist.broadcast(first, 0)
            names.append(name)
            alike.append(torch.equal(first, tensor))
        drifted = [n for n, same in zip(names, self.all_say(*alike), strict=True) if not same]
        if drifted:
            raise DataError(
                f"{len(drifted)} of {len(names)} weights differ between the processes after training, the first is "
                f"{drifted[0]}; those of the first process are saved, but were not trained as they should have been"
            )

    def average(self, gradients: list[Tensor]) -> None:
        """Replace gradients by their mean over all processes, in one exchange."""
        if self.world == 1 or not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.world
        pieces = flat.split([gradient.numel() for gradient in gradients])
        shaped = [p.view_as(g) for p, g in zip(pieces, gradients, strict=True)]
        torch._foreach_copy_(gradients, shaped)


@contextmanager
def joined(chosen: argparse.Namespace) -> Iterator[Ranks]:
    """This process alone, or one of torchrun's; each of these gets its own device and working folder."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    with processes(chosen.device) as group:
        chosen.device = str(group.device)
        if not group.is_first:
            chosen.work = chosen.work / f"rank{group.rank}"
        yield Ranks(group.rank, group.world)
