"""Processes: alone without ceremony; refusals before anything is begun."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

from spatial_ttt.errors import ConfigError
from spatial_ttt.train.distributed import processes


def test_alone():
    for _ in range(2):
        with processes("auto" if not torch.cuda.is_available() else "cpu") as group:
            assert (group.rank, group.world, group.is_first) == (0, 1, True)
            assert group.sum(torch.tensor([2.0])).tolist() == [2.0]
            group.wait()
        assert not dist.is_initialized()


def test_an_error_leaves_no_group_behind():
    with pytest.raises(RuntimeError, match="on purpose"), processes("cpu"):
        raise RuntimeError("on purpose")
    assert not dist.is_initialized()


def gloo_threads() -> set[str]:
    """Kernel ids of this process's threads that gloo began."""
    tasks = Path("/proc/self/task").iterdir()
    return {task.name for task in tasks if "gloo" in (task / "comm").read_text()}


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_no_thread_of_the_group_outlives_it():
    """Else one of them may abort the process: it needs Python when Python is ending."""
    before = gloo_threads()
    with processes("cpu") as group:
        module = fully_shard(nn.Linear(4, 4), mesh=group.mesh)
        module(torch.ones(2, 4)).sum().backward()
        weight = module.weight.full_tensor()
        assert gloo_threads() - before
        del module
    assert group.mesh.size() == 1 and weight.shape == (4, 4)  # held to here, and no hindrance
    assert not gloo_threads() - before


def test_devices():
    with pytest.raises(ConfigError, match="auto, cpu or cuda"), processes("tpu"):
        pass
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="offers no CUDA"), processes("cuda"):
            pass
