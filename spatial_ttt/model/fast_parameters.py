"""What a TTT layer's branch is trained with: initial fast weights, and the convolutions' kernels."""

from __future__ import annotations

import torch
from torch import nn

from spatial_ttt.model import fast_weights as fw
from spatial_ttt.model.configuration import state_dtype
from spatial_ttt.model.convolution import dirac


class FastParameters(nn.Module):
    """The trained initial fast weights; full, or left @ right + 0.5 I for gate and up."""

    def __init__(self, heads: int, dim: int, low_rank: int) -> None:
        super().__init__()
        self.low_rank = low_rank
        scale = dim**-0.5
        if low_rank:
            self.gate_left = nn.Parameter(torch.randn(heads, dim, low_rank) * low_rank**-0.5)
            self.gate_right = nn.Parameter(torch.randn(heads, low_rank, dim) * scale)
            self.up_left = nn.Parameter(torch.randn(heads, dim, low_rank) * low_rank**-0.5)
            self.up_right = nn.Parameter(torch.randn(heads, low_rank, dim) * scale)
        else:
            self.gate = nn.Parameter(torch.randn(heads, dim, dim) * scale)
            self.up = nn.Parameter(torch.randn(heads, dim, dim) * scale)
        self.down = nn.Parameter(torch.randn(heads, dim, dim) * scale)

    def initial(self) -> fw.FastWeights:
        """The weights before the first write, [heads, D, D] each, in the precision of the state."""
        exact = state_dtype(self.down.dtype)
        if not self.low_rank:
            return fw.FastWeights(self.gate.to(exact), self.up.to(exact), self.down.to(exact))
        half = 0.5 * torch.eye(self.down.shape[-1], dtype=exact, device=self.down.device)
        gate = self.gate_left.to(exact) @ self.gate_right.to(exact) + half
        up = self.up_left.to(exact) @ self.up_right.to(exact) + half
        return fw.FastWeights(gate, up, self.down.to(exact))


class DepthwiseKernel(nn.Module):
    """The weight [C, 1, 3, 3, 3] of one of the three convolutions, the identity at the start."""

    def __init__(self, channels: int, centre: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(dirac(channels, centre))
