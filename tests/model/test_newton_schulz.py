"""Newton-Schulz: the written polynomial on singular values, shapes, precisions, gradients."""

from __future__ import annotations

import pytest
import torch

from spatial_ttt.model.newton_schulz import COEFFICIENTS, newton_schulz, plain_newton_schulz
from tests.model.streams import relative


def matrices(*shape: int, dtype=torch.float64, seed=0):
    return torch.randn(
        shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).to(dtype)


@pytest.mark.parametrize("shape", [(4, 4), (3, 7), (7, 3), (1, 5), (2, 3, 6, 6)])
def test_each_step_is_an_odd_polynomial_of_the_singular_values(shape):
    x = matrices(*shape)
    left, values, right = torch.linalg.svd(x, full_matrices=False)
    values = values / (x.norm(dim=(-2, -1))[..., None] + 1e-7)
    for a, b, c in COEFFICIENTS:
        values = a * values + b * values**3 + c * values**5
    expected = left @ torch.diag_embed(values) @ right
    assert relative(newton_schulz(x, "bfloat16"), expected) <= 1e-10, "float64 stays float64"
    assert relative(plain_newton_schulz(x, "bfloat16"), expected) <= 1e-10


def test_singular_values_of_a_usual_matrix_end_near_one():
    values = torch.linalg.svdvals(newton_schulz(matrices(8, 16, 16), "float32"))
    assert float(values[:, :12].min()) > 0.5 and float(values.max()) < 1.3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_products_run_in_the_asked_precision_and_the_result_keeps_the_inputs(dtype):
    x = matrices(2, 5, 5, dtype=torch.float32)
    out = newton_schulz(x, dtype)
    assert out.dtype == torch.float32
    error = relative(out.double(), newton_schulz(x.double(), dtype))
    assert error < (1e-4 if dtype == "float32" else 0.2)
    if dtype == "bfloat16":
        assert error > 1e-4, "nothing was computed in bfloat16"


def test_zero_stays_zero():
    assert not newton_schulz(torch.zeros(2, 3, 3), "float32").any()


@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 4)])
def test_gradients_are_those_of_the_plain_formula(shape):
    x = matrices(2, *shape).requires_grad_()
    weight = matrices(2, *shape, seed=1)
    (expected,) = torch.autograd.grad((plain_newton_schulz(x, "float32") * weight).sum(), x)
    (got,) = torch.autograd.grad((newton_schulz(x, "float32") * weight).sum(), x)
    assert relative(got, expected) <= 1e-9
