"""Alone, ranks change nothing; what several do together is proved by a run of two in test_tiny."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from spatial_ttt.train.ranks import Ranks, joined
from spatial_ttt.train.tiny import parse

ENVIRONMENT = dict(os.environ, OMP_NUM_THREADS="1")


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
    assert ranks.all_say(True, False) == (True, False)


TOGETHER = """
import torch
from torch import nn
from spatial_ttt.errors import DataError
from spatial_ttt.train.distributed import processes
from spatial_ttt.train.ranks import Ranks

with processes("cpu") as group:
    ranks = Ranks(group.rank, group.world)
    assert ranks.all_say(True, group.is_first, False, not group.is_first) == (True, False, False, False)
    module = nn.Linear(2, 2)
    ranks.share(module)
    ranks.check_alike(module)
    if not group.is_first:
        with torch.no_grad():
            module.bias += 1
    try:
        ranks.check_alike(module)
    except DataError as error:
        print(f"rank {group.rank}: {error}", flush=True)
"""


def test_two_processes_both_learn_what_one_lacks_and_what_has_drifted(tmp_path: Path) -> None:
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *torchrun, str(script)],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        assert (
            f"rank {rank}: 1 of 2 weights differ" in done.stdout and "first is bias" in done.stdout
        )
