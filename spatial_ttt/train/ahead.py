"""Packs on their way to the device one before they are asked for, beside the work on the pack before.

    loader -> `fetch`: what the model takes of the next pack is sent on a stream of its own -> `next_pack`

An update ends with a device that waits for the host; what its next step reads first is there by then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from spatial_ttt.train.dataset import LoadedPack, LoadedSample


class Source(Protocol):
    """What gives packs, as `PackLoader` does."""

    def ready(self) -> Sequence[LoadedSample] | None:
        """Samples of the next pack; None while it is being read, and after the last one."""

    def next_pack(self) -> LoadedPack:
        """The next pack."""


class Sent(Protocol):
    """What a model takes for a pack."""

    def tensors(self) -> Iterable[Tensor]:
        """All of it that lies on the device."""


S = TypeVar("S", bound=Sent)


class Ahead(Generic[S]):
    """A source's packs with what a model takes for them.

    `send` makes that of a pack's samples and does nothing on the device but copies to it.
    """

    def __init__(
        self, source: Source, send: Callable[[Sequence[LoadedSample]], S], device: torch.device
    ) -> None:
        self._source, self._send, self._device = source, send, device
        self._next: tuple[S, torch.cuda.Event | None] | None = None
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.waited = 0.0
        """Seconds spent waiting for the source, in all."""

    def fetch(self) -> None:
        """Begin to send the next pack, if it is read: to be called when the device has been given work."""
        if self._next is not None:
            return
        samples = self._source.ready()
        if samples is not None:
            self._next = self._begin(samples)

    def next_pack(self) -> tuple[LoadedPack, S]:
        """The next pack, and what the model takes for it; work given to the device from now on waits for the copies."""
        began = time.perf_counter()
        pack = self._source.next_pack()
        self.waited += time.perf_counter() - began
        made, event = self._next or self._begin(pack.samples)
        self._next = None
        if event is not None:
            here = torch.cuda.current_stream(self._device)
            here.wait_event(event)
            for tensor in made.tensors():  # its memory is the other stream's
                tensor.record_stream(here)
        return pack, made

    def _begin(self, samples: Sequence[LoadedSample]) -> tuple[S, torch.cuda.Event | None]:
        if self._stream is None:
            return self._send(samples), None
        with torch.cuda.stream(self._stream):
            return self._send(samples), self._stream.record_event()
