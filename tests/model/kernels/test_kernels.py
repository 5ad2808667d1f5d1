"""Kernels equal their plain versions: in Triton's interpreter here, compiled on a GPU where there is one."""

from __future__ import annotations

import pytest
import torch

from tests.model.kernels.checks import CHECKS, run
from tests.model.kernels.together import Found, ask, operations_for


@pytest.fixture(scope="module")
def interpreted(request: pytest.FixtureRequest) -> Found:
    pytest.importorskip("triton")
    operations = operations_for(test_interpreted_kernel_equals_plain_version, request)
    # Set from outside: checks import transformers, which imports Triton, before they ask for the interpreter.
    return ask("tests.model.kernels.checks", operations, {"TRITON_INTERPRET": "1"})


@pytest.mark.parametrize("operation", list(CHECKS))
def test_interpreted_kernel_equals_plain_version(operation: str, interpreted: Found) -> None:
    """Outputs and all gradients, at odd sizes, with NaN in fresh memory."""
    _assert_close(interpreted.of(operation))


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
