"""What a TTT branch starts from."""

from __future__ import annotations

import torch

from spatial_ttt.model.fast_parameters import DepthwiseKernel, FastParameters


def test_full_weights_are_taken_as_they_are() -> None:
    made = FastParameters(2, 6, 0)
    initial = made.initial()
    for name in ("gate", "up", "down"):
        assert torch.equal(getattr(initial, name), getattr(made, name))
    assert {name for name, _ in made.named_parameters()} == {"gate", "up", "down"}


def test_low_ranks_are_a_product_beside_half_the_identity() -> None:
    made = FastParameters(2, 6, 3).double()
    initial = made.initial()
    for side in ("gate", "up"):
        found = getattr(initial, side) - 0.5 * torch.eye(6, dtype=torch.float64)
        assert torch.linalg.matrix_rank(found).tolist() == [3, 3]
        left, right = getattr(made, f"{side}_left"), getattr(made, f"{side}_right")
        for head in range(2):
            torch.testing.assert_close(found[head], left[head] @ right[head])
    assert torch.equal(initial.down, made.down)


def test_the_state_is_at_least_single_precision() -> None:
    assert FastParameters(1, 4, 0).bfloat16().initial().gate.dtype == torch.float32
    assert FastParameters(1, 4, 2).double().initial().up.dtype == torch.float64


def test_a_kernel_begins_as_the_identity() -> None:
    weight = DepthwiseKernel(3, 1).weight
    assert weight.shape == (3, 1, 3, 3, 3)
    assert weight.sum() == 3 and (weight[:, 0, 1, 1, 1] == 1).all()
