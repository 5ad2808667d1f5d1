"""What the host prepares for launches: sizes, counted in plain Python, and inputs whose rows are dense.

Triton's functions of these names are made for kernels: called by the host, each takes as long as a fifth of a launch.
"""

from __future__ import annotations

from torch import Tensor


def cdiv(count: int, size: int) -> int:
    """How many blocks of `size` hold `count`."""
    return -(-count // size)


def next_power_of_2(count: int) -> int:
    """The least power of two that is not less than `count`, at least 1."""
    return 1 << (count - 1).bit_length()


def unit_last(x: Tensor) -> Tensor:
    """x, or a copy, with its last dimension dense."""
    return x if x.stride(-1) == 1 else x.contiguous()
