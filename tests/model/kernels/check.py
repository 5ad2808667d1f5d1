"""What a kernel's check is: the same function twice, fast and plain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

Function = Callable[..., Tensor | tuple[Tensor, ...]]


class Check(NamedTuple):
    """One comparison: `fast(*inputs)` against `plain(*inputs in float64)`."""

    name: str
    fast: Function
    plain: Function
    inputs: Sequence[Tensor]
    limit: float
    has_gradients: bool = True
