"""What surrounds the convolution's kernel and runs on every device."""

from __future__ import annotations

import torch

from spatial_ttt.model.convolution import take_tokens


def test_take_tokens_equals_index_select_and_its_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 9, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    index = torch.tensor([7, 0, 4, 5])
    upstream = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator)
    wanted = tokens.index_select(1, index)
    got = take_tokens(tokens, index)
    assert torch.equal(got, wanted)
    (a,) = torch.autograd.grad(got, tokens, upstream)
    (b,) = torch.autograd.grad(wanted, tokens, upstream)
    assert torch.equal(a, b)
