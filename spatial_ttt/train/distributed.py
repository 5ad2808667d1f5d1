"""Processes: one without ceremony, or many under torchrun; NCCL on GPUs, gloo on CPUs.

The same sharded path runs for any number of processes, one included.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from spatial_ttt.errors import ConfigError

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others (one may be reading a slow disk)."""


@dataclass(frozen=True)
class Processes:
    """This process among all of a run."""

    rank: int
    world: int
    device: torch.device
    mesh: DeviceMesh

    @property
    def is_first(self) -> bool:
        """The process that writes logs and folders."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def processes(device: str) -> Iterator[Processes]:
    """Join torchrun's process group, or make one of this process alone."""
    rank = int(os.environ.get("RANK", "0"))
    world = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = _device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    store = torch._C._distributed_c10d.HashStore() if world == 1 else None
    where = {} if store is None else {"store": store, "rank": 0, "world_size": 1}
    dist.init_process_group(backend, timeout=PATIENCE, **where)  # type: ignore[arg-type]
    mesh = init_device_mesh(chosen.type, (world,))
    is_done = False
    try:
        yield Processes(rank, world, chosen, mesh)
        is_done = True
    finally:
        if is_done or world == 1:  # after an error the others may wait for us for ever: just end
            _end(mesh)


def _end(mesh: DeviceMesh) -> None:
    """Leave the process group, and see its threads out.

    A thread of gloo that lets go of a finished exchange's tensors needs Python. If Python ends at that moment
    the process is aborted ("terminate called without an active exception"). Only a group that nobody holds
    joins its threads, but torch's caches of layouts keep the mesh for good, and the mesh keeps the group.
    """
    dist.destroy_process_group()
    mesh._pg_registry.clear()
    gc.collect()  # sharded modules hold the group too, in cycles


def _device(name: str, local_rank: int) -> torch.device:
    has_gpu = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if has_gpu else "cpu"
    if name not in ("cpu", "cuda"):
        raise ConfigError(f"device must be auto, cpu or cuda, got {name!r}")
    if name == "cpu":
        return torch.device("cpu")
    if not has_gpu:
        raise ConfigError("device 'cuda' was asked for, but this machine offers no CUDA; use cpu")
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"process {local_rank} finds {torch.cuda.device_count()} GPUs; "
            f"start at most one process per GPU (torchrun --nproc-per-node)"
        )
    return torch.device("cuda", local_rank)


def local(tensor: Tensor) -> Tensor:
    """This process's share of a parameter."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a parameter; every process must ask at the same time."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
