"""An answer as a run of events, the same for every way of asking: start, pieces, done."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from spatial_ttt.errors import SpatialTTTError
from spatial_ttt.generate import Decoding
from spatial_ttt.serve.hosted import HostedSession
from spatial_ttt.serve.metrics import Metrics
from spatial_ttt.serve.problems import Problem, as_problem

Event = dict[str, Any]


async def answer_events(
    hosted: HostedSession, question: str, decoding: Decoding, metrics: Metrics
) -> AsyncGenerator[Event, None]:
    """Ask and tell: {type: start, seen, seconds_seen}, {type: piece, text} ..., {type: done, answer, ...}.

    Raises SpatialTTTError where the question cannot be asked.
    """
    started = time.perf_counter()
    answer = await hosted.ask(question, decoding)
    moment = {"seen": answer.seen, "seconds_seen": answer.seconds_seen}
    end = "left"
    text: list[str] = []
    try:
        async with aclosing(answer.pieces) as pieces:
            yield {"type": "start"} | moment
            async for piece in pieces:
                if not text:
                    metrics.first_piece_seconds.observe(time.perf_counter() - started)
                text.append(piece)
                yield {"type": "piece", "text": piece}
        end = "done"
    except SpatialTTTError:
        end = "failed"
        raise
    finally:
        metrics.answers.labels(end).inc()
        metrics.answer_seconds.observe(time.perf_counter() - started)
    seconds = round(time.perf_counter() - started, 4)
    yield {"type": "done", "answer": "".join(text), "seconds": seconds} | moment


async def whole_answer(
    hosted: HostedSession, question: str, decoding: Decoding, metrics: Metrics
) -> Event:
    """The last event of an answer."""
    return await last_of(answer_events(hosted, question, decoding, metrics))


async def last_of(events: AsyncGenerator[Event, None]) -> Event:
    """The last event of a run."""
    last: Event = {}
    async with aclosing(events) as source:
        async for event in source:
            last = event
    return last


def check_question(question: str, most_chars: int) -> str:
    """A question fit to be asked: not too long, and without the model's own control tokens."""
    check_length(question, most_chars)
    return plain_text(question)


def check_length(question: str, most_chars: int) -> None:
    """Raise a 413 Problem for a question that is too long."""
    if len(question) > most_chars:
        raise Problem(
            413,
            "too_long",
            f"the question has {len(question)} characters, at most {most_chars} are taken",
        )


def plain_text(text: str) -> str:
    """Text that cannot be read as a control token such as <|im_end|>."""
    return text.replace("<|", "< |").replace("|>", "| >")


async def server_sent(events: AsyncGenerator[Event, None]) -> AsyncGenerator[str, None]:
    """Events as a text/event-stream; an error becomes the last event."""
    try:
        async with aclosing(events) as source:
            async for event in source:
                yield f"data: {json.dumps(event)}\n\n"
    except SpatialTTTError as error:
        problem = {"type": "error", "error": as_problem(error).to_dict()}
        yield f"data: {json.dumps(problem)}\n\n"
