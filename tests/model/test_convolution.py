"""The convolution over slots: torch's own Conv3d with replicate padding, and the identity at the start."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spatial_ttt.model.convolution import convolve_slots, dirac, plain_convolve_slots
from tests.model.streams import relative


def reference(video: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A whole video [B, T, h, w, C] through nn.Conv3d, replicate padding on every side."""
    layer = nn.Conv3d(video.shape[-1], video.shape[-1], 3, padding=1, padding_mode="replicate",
                      groups=video.shape[-1], bias=False).to(video.dtype)  # fmt: skip
    layer.weight.data = weight
    return layer(video.movedim(-1, 1)).movedim(1, -1).detach()


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("grid", [(1, 1), (1, 4), (3, 2)])
def test_slots_between_their_neighbours_equal_a_padded_convolution(grid, dtype, grad):
    g = torch.Generator().manual_seed(0)
    video = torch.randn(2, 4, *grid, 6, generator=g, dtype=dtype)
    weight = torch.randn(6, 1, 3, 3, 3, generator=g, dtype=dtype)
    slots = torch.cat((video[:, :1], video, video[:, -1:]), dim=1).requires_grad_(grad)
    out = convolve_slots(slots, weight)
    limit = 1e-12 if dtype == torch.float64 else 1e-5
    assert relative(out, reference(video, weight)) <= limit
    assert relative(plain_convolve_slots(slots, weight), out.detach()) <= limit


def test_it_is_a_cross_correlation_in_time():
    weight = torch.zeros(1, 1, 3, 3, 3)
    weight[0, 0, 2, 1, 1] = 1.0  # the last tap reads the next slot
    slots = torch.arange(5.0).view(1, 5, 1, 1, 1)
    assert convolve_slots(slots, weight).flatten().tolist() == [2.0, 3.0, 4.0]


@pytest.mark.parametrize(("centre", "expected"), [(1, [1.0, 2.0, 3.0]), (2, [2.0, 3.0, 4.0])])
def test_dirac_is_the_identity(centre, expected):
    slots = torch.arange(5.0).view(1, 5, 1, 1, 1).expand(1, 5, 2, 3, 4)
    out = convolve_slots(slots, dirac(4, centre))
    assert out[0, :, 0, 0, 0].tolist() == expected and torch.equal(
        out, slots[:, centre : centre + 3]
    )


def test_gradients_of_input_and_weight():
    g = torch.Generator().manual_seed(0)
    slots = torch.randn(1, 4, 2, 3, 2, generator=g, dtype=torch.float64).requires_grad_()
    weight = torch.randn(2, 1, 3, 3, 3, generator=g, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(convolve_slots, (slots, weight))
