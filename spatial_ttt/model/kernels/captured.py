"""Lists of launches as one: captured once, then replayed."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


class Products(NamedTuple):
    """A list of products: where its inputs are put, and what makes the result from there.

    The result is good until the next run on the same stream.
    """

    inputs: tuple[Tensor, ...]
    run: Callable[[], Tensor]


Maker = Callable[[torch.Size, torch.dtype, torch.device], Products]


class _Replay(NamedTuple):
    """A captured list of products."""

    graph: torch.cuda.CUDAGraph
    result: Tensor
    captured: Products  # whose memory the graph works in: it must not be given out

    def run(self) -> Tensor:
        """The products again, from what lies at their places."""
        self.graph.replay()
        return self.result


def ready(make: Maker, like: Tensor, work: torch.dtype) -> Products:
    """The products for matrices like these, as one graph where a device has them."""
    if like.device.type != "cuda" or torch.cuda.is_current_stream_capturing():
        return make(like.shape, work, like.device)
    stream = torch.cuda.current_stream(like.device).cuda_stream
    return _captured(make, like.shape, work, like.device, stream)


@lru_cache(maxsize=32)
def _captured(
    make: Maker, shape: torch.Size, work: torch.dtype, device: torch.device, stream: int
) -> Products:
    """Products as one launch, at places of the stream's own."""
    plain = make(shape, work, device)
    for place in plain.inputs:
        place.zero_()
    plain.run()  # compiles what a capture must not
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = plain.run()
    return Products(plain.inputs, _Replay(graph, result, plain).run)


class Graphs:
    """Captures work as CUDA graphs that share one memory pool; where there is no CUDA, work is simply done."""

    def __init__(self, device: torch.device, *, on_current: bool = False) -> None:
        """`on_current` captures on the stream that asks, which must not be the default one, and works in its memory."""
        self.is_on = device.type == "cuda"
        self.pool = torch.cuda.graph_pool_handle() if self.is_on else None
        self._on_current = on_current

    def capture(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """The same work, replayed; it may read and write tensors of fixed address only.

        The first call does it as it is, so that nothing has to be compiled while capturing. Other threads may
        use the device meanwhile.
        """
        if not self.is_on:
            return work
        graph: torch.cuda.CUDAGraph | None = None
        captured: list[Result] = []

        def run() -> Result:
            nonlocal graph
            if graph is not None:
                graph.replay()
                return captured[0]
            result = work()
            fresh = torch.cuda.CUDAGraph()
            stream = torch.cuda.current_stream() if self._on_current else None
            with torch.cuda.graph(
                fresh, pool=self.pool, stream=stream, capture_error_mode="thread_local"
            ):
                captured.append(work())
            graph = fresh
            return result

        return run
