"""Work that runs beside other work of the same layer: on a second CUDA stream, where a piece is long enough to pay.

Window attention fills a GPU; the fast weights are many small products one after the other, which leave most of it
idle. Neither reads what the other makes, so they share the device.

With gradients autograd runs what belongs to an operation on the operation's stream, lets one stream wait for the
other where gradients go across, and keeps their memory meanwhile. It does not for what was saved, which is told here
(see `both`); of activations that are made again it is told again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import torch

from spatial_ttt.model.state import tensors

LEAST_TOKENS = 4096
"""Shorter pieces gain little: a question that ends a video (up to 3,700 tokens) rather saves the memory of both."""

T = TypeVar("T")
U = TypeVar("U")


def applies(x: torch.Tensor, length: int) -> bool:
    """A second stream may be used for `length` tokens: on a GPU, outside captured work."""
    if x.device.type != "cuda" or length < LEAST_TOKENS:
        return False
    return not torch.cuda.is_current_stream_capturing()


def both(
    main: Callable[[], T], other: Callable[[], U], device: torch.device, reads: Any = ()
) -> tuple[T, U]:
    """Results of `main` and, made on a stream of its own beside it, `other`: tensors or tuples of them.

    What either reads must outlive this call; what they make is as good as any other tensor afterwards. Memory of the
    other's own is free again only when the device has come so far: large results better go where the caller made room.

    With gradients `reads`, a nest of tuples, holds all tensors that `other` reads. A parameter itself must not be among
    them: its gradients are summed on the stream that meets it first, and that should be the current one.
    Without CUDA one follows the other.
    """
    if device.type != "cuda":
        return main(), other()
    current, side = torch.cuda.current_stream(device), _stream(device)
    began = current.record_event()
    first = main()
    side.wait_event(began)
    if torch.is_grad_enabled():
        for read in tensors(reads):
            # Its backward pass reads it again, when nothing else may keep it and the current stream may be far ahead.
            read.record_stream(side)
    with torch.cuda.stream(side):
        second = other()
    for made in tensors(second):
        made.record_stream(
            current
        )  # else its memory might be given out again while it is still read there
    current.wait_stream(side)
    return first, second


class Lane:
    """A stream of its own for work that others need not wait for; where there is no CUDA, work is done at once."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def run(self, work: Callable[[], object]) -> Callable[[], None]:
        """Do it here, after all that the current stream was given; returns what lets the current stream wait for it.

        What the work reads and makes must outlive that.
        """
        stream = self._stream
        if stream is None:
            work()
            return _nothing
        stream.wait_stream(torch.cuda.current_stream(stream.device))
        with torch.cuda.stream(stream):
            work()
        done = stream.record_event()
        return lambda: torch.cuda.current_stream(stream.device).wait_event(done)


def _nothing() -> None:
    """There is nothing to wait for."""


@lru_cache(maxsize=16)
def _stream(device: torch.device) -> torch.cuda.Stream:
    # Small kernels in a row are let in between the blocks of a large one.
    return torch.cuda.Stream(device, priority=-1)
