"""What a kernel's check is: the same function twice, fast and plain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import cycle, product
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from spatial_ttt.model.kernels import interpreting

Case = TypeVar("Case")
Way = TypeVar("Way")
Function = Callable[..., Tensor | tuple[Tensor, ...]]


class Check(NamedTuple):
    """One comparison: `fast(*inputs)` against `plain(*inputs in float64)`."""

    name: str
    fast: Function
    plain: Function
    inputs: Sequence[Tensor]
    limit: float
    has_gradients: bool = True


def each_way(
    cases: Iterable[Case], ways: Sequence[Way], device: torch.device
) -> list[tuple[Case, Way]]:
    """All pairs. Where kernels are compiled and not run, each case once, the ways in turn."""
    if device.type == "cpu" and not interpreting():
        return list(zip(cases, cycle(ways), strict=False))
    return list(product(cases, ways))
