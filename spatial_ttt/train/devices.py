"""Between host and device without making either wait."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """The array on a device; a GPU fetches it while the host goes on."""
    return sent(torch.from_numpy(array), device)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The same for a tensor of the host: `to` would wait until the device has done all it was given before."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@lru_cache(maxsize=64)
def constant(values: tuple[Any, ...], device: torch.device) -> Tensor:
    """A tensor of these values, sent to the device once; never write to it."""
    return to_device(np.array(values), device)


class Mark:
    """A moment in the device's work (in the host's, on a CPU)."""

    def __init__(self, device: torch.device) -> None:
        self.event: Any = None
        self.time = time.monotonic()
        if device.type == "cuda":
            self.event = torch.cuda.Event(enable_timing=True)
            self.event.record()

    @property
    def has_passed(self) -> bool:
        """The device has come this far; raises what went wrong on it."""
        return self.event is None or bool(self.event.query())

    def ms_since(self, earlier: Mark) -> float:
        """Milliseconds between two marks that have passed."""
        if self.event is None:
            return 1000 * (self.time - earlier.time)
        return float(earlier.event.elapsed_time(self.event))


class HostCopy:
    """Numbers on their way from the device; read them once a later mark has passed."""

    def __init__(self, values: Tensor) -> None:
        values = values.detach().float()
        if values.is_cuda:
            self.values = torch.empty(values.shape, pin_memory=True)
            self.values.copy_(values, non_blocking=True)
        else:
            self.values = values.clone()
