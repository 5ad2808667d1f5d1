"""Every kernel compiles for a Hopper GPU, here, where there is none."""

from __future__ import annotations

import pytest

from tests.model.kernels.checks import CHECKS
from tests.model.kernels.together import Found, ask, operations_for

SHARED_BYTES = 227 << 10
"""Shared memory that a block may take on Hopper."""
SLOW = ("scan",)  # many variants of a large kernel: a minute


@pytest.fixture(scope="module")
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What operations share is compiled once."""
    pytest.importorskip("triton")
    operations = operations_for(test_kernels_compile_without_a_gpu, request)
    cache = str(tmp_path_factory.mktemp("triton"))
    return ask("tests.model.kernels.hopper", operations, {"TRITON_CACHE_DIR": cache})


@pytest.mark.parametrize(
    "operation",
    [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in CHECKS],
)
def test_kernels_compile_without_a_gpu(operation: str, compiled: Found) -> None:
    found = compiled.of(operation)
    assert found, "no kernel was compiled"
    assert {name: k["shared_bytes"] for name, k in found.items() if k["shared_bytes"] > SHARED_BYTES} == {}  # fmt: skip
