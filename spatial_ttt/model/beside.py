"""Work that runs beside other work of the same layer: on a second CUDA stream, where a piece is long enough to pay.

Window attention fills a GPU; the fast weights are many small products one after the other, which leave most of it
idle. Neither reads what the other makes, so they share the device.

With gradients autograd runs what belongs to an operation on the operation's stream, lets one stream wait for the
other where gradients go across, and keeps their memory meanwhile. It does not for what was saved, which is told here
(see `both`); of activations that are made again it is told again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, TypeVar

import torch

from spatial_ttt.model.state import tensors

LEAST_TOKENS = 4096
"""Shorter pieces gain little: a question that ends a video (up to 3,700 tokens) rather saves the memory of both."""

T = TypeVar("T")
U = TypeVar("U")


def applies(x: torch.Tensor, length: int) -> bool:
    """A second stream may be used for `length` tokens: on the current GPU, outside captured work."""
    if x.device.type != "cuda" or length < LEAST_TOKENS:
        return False
    if x.device.index != torch.cuda.current_device():
        return False  # going back and forth between streams would leave the other device the current one
    return not torch.cuda.is_current_stream_capturing()


def current(device: torch.device) -> torch.cuda.Stream | None:
    """The stream that work on this device goes to now; None where there is no CUDA."""
    return torch.cuda.current_stream(device) if device.type == "cuda" else None


def both(
    main: Callable[[], T], other: Callable[[], U], device: torch.device, reads: Any = ()
) -> tuple[T, U]:
    """Results of `main` and, made on a stream of its own beside it, `other`: tensors or tuples of them.

    What either reads must outlive this call; what they make is as good as any other tensor afterwards. Memory of the
    other's own is free again only when the device has come so far: large results better go where the caller made room.

    With gradients `reads`, a nest of tuples, holds all tensors that `other` reads. A parameter itself must not be among
    them: its gradients are summed on the stream that meets it first, and that should be the current one.
    Without CUDA one follows the other; with it, `device` is the current one.
    """
    here = current(device)
    if here is None:
        return main(), other()
    side = _stream(device)
    began = here.record_event()
    first = main()
    side.wait_event(began)
    if torch.is_grad_enabled():
        for read in tensors(reads):
            # Its backward pass reads it again, when nothing else may keep it and the current stream may be far ahead.
            read.record_stream(side)
    second = _on(side, other, here)
    for made in tensors(second):
        # Else its memory might be given out again while it is still read there.
        made.record_stream(here)
    here.wait_stream(side)
    return first, second


class Lane:
    """A stream of its own for work that others need not wait for; where there is no CUDA, work is done at once.

    One thread at a time, on the stream `beside` (None without CUDA) of the current device.
    """

    def __init__(self, beside: torch.cuda.Stream | None) -> None:
        self._beside = beside
        self._stream = None if beside is None else torch.cuda.Stream(beside.device)
        # Waiting for an event means its latest record, so one serves all work.
        self._began = None if beside is None else torch.cuda.Event()

    def run(self, work: Callable[[], object]) -> Callable[[], None]:
        """Do it here, after all that `beside` was given; returns what lets `beside` wait for it.

        What the work reads and makes must outlive that.
        """
        beside, stream, began = self._beside, self._stream, self._began
        if beside is None or stream is None or began is None:
            work()
            return nothing
        began.record(beside)
        began.wait(stream)
        _on(stream, work, beside)
        return partial(stream.record_event().wait, beside)


def _on(stream: torch.cuda.Stream, work: Callable[[], T], back: torch.cuda.Stream) -> T:
    """Work on a stream of the current device, whose current stream is `back`.

    As within `torch.cuda.stream`, without its questions about devices and streams: long pieces come here thousands
    of times.
    """
    torch.cuda.set_stream(stream)
    try:
        return work()
    finally:
        torch.cuda.set_stream(back)


def nothing() -> None:
    """There is nothing to wait for."""


@lru_cache(maxsize=16)
def _stream(device: torch.device) -> torch.cuda.Stream:
    # Small kernels in a row are let in between the blocks of a large one.
    return torch.cuda.Stream(device, priority=-1)
