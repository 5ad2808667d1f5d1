"""Lists of launches as one: captured once for a shape and a stream, then replayed."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

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
