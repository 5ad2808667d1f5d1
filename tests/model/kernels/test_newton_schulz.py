"""The recomputing Newton-Schulz against the formula, and its backward pass against autograd's."""

from __future__ import annotations

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from spatial_ttt.model.newton_schulz import newton_schulz, plain_newton_schulz


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (7, 5), (2, 3, 4, 4)])
def test_gradient_equals_numerical_one(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(*shape, dtype=torch.float64, generator=_seed(), requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: newton_schulz(m, "float32"), (matrices,))


@pytest.mark.parametrize("shape", [(3, 9, 9), (2, 2, 6, 11), (11, 6)])
def test_equals_the_formula(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(*shape, dtype=torch.float64, generator=_seed())
    got, wanted = newton_schulz(matrices, "float32"), plain_newton_schulz(matrices, "float32")
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


def test_a_zero_matrix_stays_zero_and_has_a_finite_gradient() -> None:
    matrices = torch.zeros(2, 4, 4, requires_grad=True)
    out = newton_schulz(matrices, "float32")
    (grad,) = torch.autograd.grad(out.sum(), matrices)
    assert not out.any()
    assert grad.isfinite().all()


def test_bfloat16_is_no_worse_than_the_formula_in_bfloat16() -> None:
    matrices = torch.randn(8, 32, 32, generator=_seed())
    exact = plain_newton_schulz(matrices.double(), "float32")
    ours = (newton_schulz(matrices, "bfloat16") - exact).norm() / exact.norm()
    plain = (plain_newton_schulz(matrices, "bfloat16") - exact).norm() / exact.norm()
    assert ours <= plain < 0.05


def test_saves_only_its_input() -> None:
    matrices = torch.randn(4, 16, 16, requires_grad=True)
    saved: list[int] = []

    def pack(x: torch.Tensor) -> torch.Tensor:
        saved.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        newton_schulz(matrices, "float32")
    assert saved == [matrices.numel()]


def test_survives_checkpointing() -> None:
    matrices = torch.randn(2, 6, 6, dtype=torch.float64, generator=_seed(), requires_grad=True)
    weight = torch.randn(2, 6, 6, dtype=torch.float64, generator=_seed())

    def loss(m: torch.Tensor) -> torch.Tensor:
        return (newton_schulz(m.tanh(), "float32") * weight).sum()

    (plain,) = torch.autograd.grad(loss(matrices), matrices)
    (again,) = torch.autograd.grad(checkpoint(loss, matrices, use_reentrant=False), matrices)
    torch.testing.assert_close(plain, again, rtol=0, atol=0)


def _seed() -> torch.Generator:
    return torch.Generator().manual_seed(0)
