"""Processes: alone without ceremony; refusals before anything is begun."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

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


def test_devices():
    with pytest.raises(ConfigError, match="auto, cpu or cuda"), processes("tpu"):
        pass
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="offers no CUDA"), processes("cuda"):
            pass
