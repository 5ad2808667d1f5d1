"""Kernels equal their plain versions: in Triton's interpreter here, compiled on a GPU where there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from tests.model.kernels.checks import CHECKS, run

ROOT = Path(__file__).parents[3]


QUICK = (
    "newton_schulz", "mixing", "network", "decoder", "shaping", "heads", "tower", "tower_attention", "patching", "runs",
    "merging", "blocks", "trained_heads", "trained_rates",
)  # fmt: skip
"""Operations that share a process: it takes longer to begin than most of them."""


@pytest.mark.parametrize("operation", list(CHECKS))
def test_interpreted_kernel_equals_plain_version(operation: str) -> None:
    """Outputs and all gradients, at odd sizes, with NaN in fresh memory."""
    pytest.importorskip("triton")
    _assert_close(_interpreted(QUICK if operation in QUICK else (operation,))[operation])


@lru_cache
def _interpreted(operations: tuple[str, ...]) -> dict[str, dict[str, tuple[float, float]]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.model.kernels.checks", *operations],
        capture_output=True,
        text=True,
        cwd=ROOT,
        # Set from outside: checks import transformers, which imports Triton, before they ask for the interpreter.
        env=os.environ | {"OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, tuple[float, float]]] = json.loads(done.stdout)
    return found


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:.*deterministic", "ignore:.*no current CUDA context")
@pytest.mark.parametrize("operation", list(CHECKS))
def test_compiled_kernel_equals_plain_version(operation: str) -> None:
    """The same on the device, with more and larger sizes."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    _assert_close(run(operation, torch.device("cuda")))


def _assert_close(found: dict[str, tuple[float, float]]) -> None:
    assert found
    wrong = {
        name: f"{error:.2e} > {limit:.0e}"
        for name, (error, limit) in found.items()
        if not error <= limit
    }
    assert not wrong
