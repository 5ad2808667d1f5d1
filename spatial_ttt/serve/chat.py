"""`/v1/chat/completions` as other clients know it: pictures and videos as data, the answer whole or streamed.

What the messages show is watched by a session of its own, which ends with the answer. With `session` (one
of ours, in the body or as the model "session:ID") the question goes to that session instead.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Any

from fastapi import APIRouter

from spatial_ttt.errors import SpatialTTTError
from spatial_ttt.generate import Decoding
from spatial_ttt.serve.answers import Event, answer_events, check_length, last_of
from spatial_ttt.serve.chat_messages import ChatRequest, Shown, read_messages
from spatial_ttt.serve.dependencies import EVENT_STREAM, REFUSALS, Access
from spatial_ttt.serve.hosted import HostedSession
from spatial_ttt.serve.problems import Problem, as_problem
from spatial_ttt.serve.routes_sessions import Caller
from spatial_ttt.serve.service import Service
from spatial_ttt.serve.store import new_id
from spatial_ttt.serve.streams import PatientStream
from spatial_ttt.video.frame import Frame

router = APIRouter(prefix="/v1", tags=["openai"], responses=REFUSALS)

_SESSION = "session:"


@router.get("/models")
async def list_models(caller: Caller) -> dict[str, Any]:
    """The model, and your sessions as models."""
    pool = caller.service.pool
    names = [(caller.service.loaded.name, 0)]
    names += [(_SESSION + r.session_id, int(r.created_at)) for r, _ in pool.records(caller.owner)]
    return {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "created": created, "owned_by": "spatial-ttt"}
            for name, created in names
        ],
    }


@router.post(
    "/chat/completions",
    responses=EVENT_STREAM,
    response_model=None,
)
async def complete(caller: Caller, body: ChatRequest) -> PatientStream | dict[str, Any]:
    """Answer the last message about what the messages show."""
    service = caller.service
    words, shown = read_messages(body.messages)
    check_length(words, service.limits.max_question_chars)
    stack = AsyncExitStack()
    try:
        hosted = await _session(caller, body, shown, stack)
        prompt_tokens = hosted.session.state.decoder.num_tokens + len(
            service.loaded.processor.question_ids(words)
        )
        events = answer_events(hosted, words, _decoding(service, body), service.metrics)
        if body.stream:
            chunks = _chunks(service, body, events, stack, prompt_tokens)
            first = await anext(chunks)
            return PatientStream.after(first, chunks, _chat_sent, service.limits.send_timeout_s)
        async with stack:
            done = await last_of(events)
        return _whole(service, body, done["answer"], prompt_tokens)
    except SpatialTTTError:
        await stack.aclose()
        raise


async def _session(
    caller: Access, body: ChatRequest, shown: list[Shown], stack: AsyncExitStack
) -> HostedSession:
    """The session that is asked."""
    pool, decoders = caller.service.pool, caller.service.decoders
    session_id = body.session
    if session_id is None and body.model.startswith(_SESSION):
        session_id = body.model.removeprefix(_SESSION)
    if session_id is not None:
        if shown:
            raise Problem(
                422,
                "bad_request",
                "a session has its own frames; push them instead of sending media",
            )
        return stack.enter_context((await pool.get(caller.owner, session_id)).in_use())
    hosted = await stack.enter_async_context(pool.passing(caller.owner, body.max_frames))
    for item in shown:
        record = hosted.record
        start = record.seconds_seen + 1 / body.fps if record.num_frames else 0.0
        if item.is_video:
            async with aclosing(decoders.clip(item.content, fps=body.fps)) as frames:
                async for frame in frames:
                    await _watch(hosted, Frame(frame.pixels, start + frame.time))
        else:
            await _watch(hosted, Frame(await decoders.image(item.content), start))
    return hosted


async def _watch(hosted: HostedSession, frame: Frame) -> None:
    ack = await hosted.watch_next(frame)
    if ack.error is not None:
        raise Problem(422, "bad_video", ack.error)


def _decoding(service: Service, body: ChatRequest) -> Decoding:
    wanted = body.max_completion_tokens or body.max_tokens or 128
    return Decoding(
        max_new_tokens=min(wanted, service.limits.max_new_tokens),
        temperature=body.temperature,
        top_p=body.top_p,
        seed=body.seed or 0,
    )


def _whole(service: Service, body: ChatRequest, answer: str, prompt: int) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer}
    completion = len(service.loaded.processor.encode(answer))
    return {
        "id": f"chatcmpl-{new_id()}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body.model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": _usage(prompt, completion),
    }


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


async def _chunks(
    service: Service,
    body: ChatRequest,
    events: AsyncGenerator[Event, None],
    stack: AsyncExitStack,
    prompt: int,
) -> AsyncGenerator[Event, None]:
    """An answer's events as chunks of the other protocol."""
    head = {
        "id": f"chatcmpl-{new_id()}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": body.model,
    }

    def chunk(delta: Event, finish: str | None = None) -> Event:
        return head | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    async with stack, aclosing(events) as source:
        async for event in source:
            if event["type"] == "start":
                yield chunk({"role": "assistant", "content": ""})
            elif event["type"] == "piece":
                yield chunk({"content": event["text"]})
            else:
                yield chunk({}, "stop")
                if body.stream_options and body.stream_options.get("include_usage"):
                    count = len(service.loaded.processor.encode(event["answer"]))
                    yield head | {"choices": [], "usage": _usage(prompt, count)}


async def _chat_sent(chunks: AsyncGenerator[Event, None]) -> AsyncGenerator[str, None]:
    """Chunks as server-sent events, then the mark of the end."""
    async with aclosing(chunks) as source:
        try:
            async for chunk in source:
                yield f"data: {json.dumps(chunk)}\n\n"
        except SpatialTTTError as error:
            yield f"data: {json.dumps({'error': as_problem(error).to_dict()})}\n\n"
    yield "data: [DONE]\n\n"
