"""Every kernel compiles for a Hopper GPU, here, where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.model.kernels.checks import CHECKS

ROOT = Path(__file__).parents[3]
SHARED_BYTES = 227 << 10
"""Shared memory that a block may take on Hopper."""
SLOW = ("scan",)  # many variants of a large kernel: a minute


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What operations share is compiled once."""
    return tmp_path_factory.mktemp("triton")


@pytest.mark.parametrize(
    "operation",
    [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in CHECKS],
)
def test_kernels_compile_without_a_gpu(operation: str, cache: Path) -> None:
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-m", "tests.model.kernels.hopper", operation],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TRITON_CACHE_DIR": str(cache)},
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found, "no kernel was compiled"
    assert {name: k["shared_bytes"] for name, k in found.items() if k["shared_bytes"] > SHARED_BYTES} == {}  # fmt: skip
