"""What comes next is made while the last is worked with: on a CUDA stream of its own.

The vision tower needs nothing of what the decoder has seen, and the decoder's fast weights leave most of a GPU idle
while they are written. So the tower reads the next piece of a stream beside the decoder's work on this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple, TypeVar

import torch

from spatial_ttt.model.state import tensors

T = TypeVar("T")
U = TypeVar("U")


class _Made(NamedTuple):
    """Tensors, or tuples of them, that may still be in the making."""

    result: object
    done: torch.cuda.Event


def one_ahead(make: Callable[[T], U], items: Iterable[T], device: torch.device) -> Iterator[U]:
    """`make` of each item, in order; on a GPU that of the next is under way when one is handed out.

    Items and results are tensors or tuples of them. What is made waits until the work on the last but one is done, so
    there is never more than one in stock. A failing item or `make` raises after what came before was handed out.
    """
    if device.type != "cuda":
        yield from map(make, items)
        return
    stock: list[_Made] = []
    coming = (_aside(make, item, device) for item in items)
    while True:
        try:
            made = next(coming, None)
        except BaseException:
            if stock:
                yield _taken(stock.pop(), device)
            raise
        if stock:
            yield _taken(stock.pop(), device)
        if made is None:
            return
        stock.append(made)
        del made  # whoever gets the result alone decides how long it lives


def _aside(make: Callable[[T], object], item: T, device: torch.device) -> _Made:
    """Begin to make it, once all is done that the current stream was given so far."""
    current, side = torch.cuda.current_stream(device), _stream(device)
    side.wait_stream(current)
    for given in tensors(item):
        given.record_stream(side)
    with torch.cuda.stream(side):
        return _Made(make(item), side.record_event())


def _taken(made: _Made, device: torch.device) -> U:  # type: ignore[type-var]
    """What was made, for the current stream."""
    current = torch.cuda.current_stream(device)
    current.wait_event(made.done)
    for x in tensors(made.result):
        x.record_stream(current)
    return made.result  # type: ignore[return-value]


@lru_cache(maxsize=16)
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
