"""Continuations of different lengths side by side: each token sees its past and its own continuation only."""

from __future__ import annotations

import pytest
import torch

from spatial_ttt.model.attention import attend
from spatial_ttt.model.branching import ALIGNMENT, UnevenBranches

LENGTHS = ((3, 5, 2), (6, 1))
PAST, WIDTH = 9, 12


def branches() -> UnevenBranches:
    number = torch.full((2, WIDTH), -1)
    step = torch.zeros(2, WIDTH, dtype=torch.long)
    for row, lengths in enumerate(LENGTHS):
        at = 0
        for n, length in enumerate(lengths):
            number[row, at : at + length] = n
            step[row, at : at + length] = torch.arange(length)
            at += length
    return UnevenBranches(number, step, 6)


@pytest.mark.parametrize("window", [None, 4, 7, 15, 100])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_each_continuation_attends_as_if_it_were_alone(
    window: int | None, implementation: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(2, heads, n, 8, generator=generator, dtype=torch.float64)
        for heads, n in ((4, WIDTH), (2, PAST + WIDTH), (2, PAST + WIDTH))
    )
    uneven = branches()
    found = attend(q, k, v, window=window, branches=uneven, implementation=implementation)
    assert torch.isfinite(found).all()
    for row, lengths in enumerate(LENGTHS):
        at = 0
        for length in lengths:
            own = slice(PAST + at, PAST + at + length)
            keys, values = (torch.cat((t[:, :, :PAST], t[:, :, own]), dim=2) for t in (k, v))
            alone = attend(q[:, :, at : at + length], keys, values, window=window)
            torch.testing.assert_close(found[row, :, at : at + length], alone[row])
            at += length


def test_a_bias_is_made_once_and_its_rows_begin_aligned() -> None:
    uneven = branches()
    assert uneven > 1 and uneven != 1
    bias = uneven.bias(PAST, None, torch.float32)
    assert bias.shape == (2, 1, WIDTH, PAST + WIDTH)
    assert all(stride % ALIGNMENT == 0 for stride in bias.stride()[:-1])
    assert uneven.bias(PAST, 1000, torch.float32) is bias  # a window over everything is none
    assert uneven.bias(PAST, 5, torch.float32) is not bias
    assert set(bias.unique().tolist()) == {0.0, float("-inf")}
