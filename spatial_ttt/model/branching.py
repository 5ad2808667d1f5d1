"""Continuations of one past, of different lengths, laid side by side without gaps.

Everywhere `branches` is a count of continuations of equal length; this is a count that also knows where each
of them lies. Nothing is computed for padding, and keys of the past are not copied for every continuation.
"""

from __future__ import annotations

import torch
from torch import Tensor

ALIGNMENT = 16  # elements; fused attention wants rows of a mask to begin at such a multiple


class UnevenBranches(int):
    """How many continuations a row has at most (at least 2), and which of L tokens belongs to which.

    `number` [B, L] counts the continuations of a row from 0 (-1: padding), `step` [B, L] the tokens of each.
    A continuation's tokens are neighbours and in order; none is longer than `longest`.
    """

    number: Tensor
    step: Tensor
    longest: int

    def __new__(cls, number: Tensor, step: Tensor, longest: int) -> UnevenBranches:
        """A count of 2 stands for all that are more than one."""
        made = super().__new__(cls, 2)
        made.number, made.step, made.longest = number, step, longest
        made._bias = {}
        return made

    _bias: dict[tuple[int, int, torch.dtype], Tensor]

    def bias(self, past: int, window: int | None, dtype: torch.dtype) -> Tensor:
        """What attention scores of L tokens to `past` and L keys are added to, [B, 1, L, past + L]: 0 or -inf.

        Made once for all layers that see the same.
        """
        reach = past + self.longest if window is None else min(window, past + self.longest)
        key = (past, reach, dtype)
        if key not in self._bias:
            self._bias[key] = self._made_bias(past, reach, dtype)
        return self._bias[key]

    def _made_bias(self, past: int, window: int, dtype: torch.dtype) -> Tensor:
        batch, length = self.number.shape
        index = torch.arange(length, device=self.number.device)
        seen = torch.arange(past, device=self.number.device)
        age = past + self.step[..., None] - seen  # [B, L, past]
        own = index[:, None] - index[None, :]
        same = self.number[:, :, None] == self.number[:, None, :]
        visible = torch.cat((age < window, same & (own >= 0) & (own < window)), dim=2)
        total = past + length
        room = -(-total // ALIGNMENT) * ALIGNMENT
        bias = torch.zeros(batch, 1, length, room, dtype=dtype, device=self.number.device)
        bias[:, 0, :, :total].masked_fill_(~visible, float("-inf"))
        return bias[..., :total]
