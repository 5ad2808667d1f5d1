"""Lists of launches as one: captured once for a shape and a stream, then replayed."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor


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


def replayed(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """The same work, captured when it is first done and replayed from then on; where there is no CUDA simply done.

    It reads and writes tensors of fixed address only. What it makes on the way lies in memory that graphs of one device
    and stream share, so they run one after the other. Call it on a stream that is not the default one.
    """
    if device.type != "cuda":
        return work
    graph: torch.cuda.CUDAGraph | None = None

    def run() -> None:
        nonlocal graph
        if graph is not None:
            graph.replay()
            return
        work()  # compiles what a capture must not
        stream = torch.cuda.current_stream(device)
        fresh = torch.cuda.CUDAGraph()
        pool = _pool(device, stream.cuda_stream)
        with torch.cuda.graph(fresh, pool=pool, stream=stream, capture_error_mode="thread_local"):
            work()
        graph = fresh

    return run


@lru_cache(maxsize=32)
def _pool(device: torch.device, stream: int) -> Any:
    return torch.cuda.graph_pool_handle()
