"""Streamed answers to readers of any speed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Message, Send

from spatial_ttt.serve.answers import Event

Format = Callable[[AsyncGenerator[Event, None]], AsyncGenerator[str, None]]


class PatientStream(StreamingResponse):
    """Events as text. A reader who takes nothing for `timeout_s` is dropped, so that nothing is held for it."""

    def __init__(self, text: AsyncGenerator[str, None], timeout_s: float) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(text, media_type="text/event-stream", headers=headers)
        self._text = text
        self._timeout_s = timeout_s

    @classmethod
    def after(
        cls, first: Event, rest: AsyncGenerator[Event, None], form: Format, timeout_s: float
    ) -> PatientStream:
        """The events `first` and `rest`, written by `form`."""
        return cls(form(_after(first, rest)), timeout_s)

    async def stream_response(self, send: Send) -> None:
        """Send piece by piece; ends early, and closes the source, where the reader does not read."""

        async def send_soon(message: Message) -> None:
            async with asyncio.timeout(self._timeout_s):
                await send(message)

        async with aclosing(self._text):
            try:
                await super().stream_response(send_soon)
            except TimeoutError:
                return


async def _after(first: Event, rest: AsyncGenerator[Event, None]) -> AsyncGenerator[Any, None]:
    async with aclosing(rest) as events:
        yield first
        async for event in events:
            yield event
