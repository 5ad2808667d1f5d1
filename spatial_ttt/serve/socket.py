"""A session over one WebSocket: frames in and questions in, acknowledgements, answers and news out.

reader -> bounded queue (a full one stops reading, so the client is slowed down) -> feeder, in order
       -> a task per question
All three end with the connection; a frame that is being watched is watched whole.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, WebSocket
from pydantic import ValidationError
from starlette.responses import JSONResponse
from starlette.websockets import WebSocketDisconnect, WebSocketState

from spatial_ttt.errors import SpatialTTTError, VideoError
from spatial_ttt.serve.answers import answer_events, check_question
from spatial_ttt.serve.auth import SUBPROTOCOL
from spatial_ttt.serve.dependencies import owner_of, service_of
from spatial_ttt.serve.frames import WireFrame, unpack
from spatial_ttt.serve.hosted import HostedSession
from spatial_ttt.serve.problems import Problem, as_problem, defect
from spatial_ttt.serve.schemas import Question, Skip
from spatial_ttt.serve.service import Service
from spatial_ttt.serve.steps import background
from spatial_ttt.video.frame import Pixels

log = logging.getLogger(__name__)
router = APIRouter()

_FRAMES_AHEAD = 3
"""Frames of a connection that wait or are being decoded."""
_NEWS_AHEAD = 256
"""News that wait for a slow reader; further ones are dropped (acknowledgements never are)."""
_GOING_AWAY, _DEFECT, _TOO_SLOW, _BAD_MESSAGE = 1001, 1011, 4008, 4400


@dataclass(slots=True)
class _Incoming:
    frame: WireFrame
    pixels: asyncio.Task[Pixels] | None  # None: seen before, not worth decoding
    arrived: float


@router.websocket("/v1/sessions/{session_id}/stream")
async def stream(websocket: WebSocket, session_id: str) -> None:
    """Frames as binary messages (see `frames`), all else as JSON with a `type`."""
    service = service_of(websocket)
    try:
        owner = owner_of(websocket)
        service.requests.check(owner)
        hosted = await service.pool.get(owner, session_id)
    except SpatialTTTError as error:
        problem = as_problem(error)
        body = JSONResponse({"error": problem.to_dict()}, problem.status)
        await websocket.send_denial_response(body)
        return
    with hosted.in_use(), service.metrics.connections.track_inprogress():
        offered = websocket.scope.get("subprotocols", ())
        await websocket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None)
        await Connection(websocket, service, hosted).run()


class Connection:
    """One client's WebSocket to one session."""

    def __init__(self, websocket: WebSocket, service: Service, hosted: HostedSession) -> None:
        self._socket = websocket
        self._service = service
        self._hosted = hosted
        self._frames: asyncio.Queue[_Incoming] = asyncio.Queue(_FRAMES_AHEAD)
        self._news: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_NEWS_AHEAD)
        self._answers: dict[str, asyncio.Task[None]] = {}
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        """Serve until either side has enough."""
        record = self._hosted.record
        deafen = self._hosted.listen(self._hear)
        tasks: list[asyncio.Task[None]] = []
        try:
            hello = {"type": "hello", "session": record.session_id, "next": record.next_id}
            await self._send(hello | {"seen": self._hosted.seen, "saved": record.saved_id})
            work: tuple[Callable[[], Any], ...] = (self._read, self._feed, self._tell_news)
            tasks = [asyncio.ensure_future(part()) for part in work]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except WebSocketDisconnect:
            pass
        except TimeoutError:
            await self._close(_TOO_SLOW, "too slow: nothing was read for too long")
        except VideoError as error:  # bytes that are no frame: a peer that speaks another language
            await self._close(_BAD_MESSAGE, str(error))
        except asyncio.CancelledError:  # the server is stopping: no defect, which clients count
            await self._close(_GOING_AWAY, "the server is stopping")
            raise
        except BaseException:  # a defect: goes on to the log, and the client hears that it is one
            await self._close(_DEFECT, "the server failed; its log says why")
            raise
        finally:
            deafen()
            for task in (*tasks, *self._answers.values()):
                task.cancel()
            while not self._frames.empty():
                incoming = self._frames.get_nowait()
                if incoming.pixels is not None:
                    incoming.pixels.cancel()

    async def _close(self, code: int, reason: str) -> None:
        with suppress(TimeoutError, RuntimeError, WebSocketDisconnect):
            async with asyncio.timeout(1.0):
                await self._socket.close(code, reason.encode()[:120].decode(errors="ignore"))

    async def _send(self, message: dict[str, Any]) -> None:
        async with self._sending, asyncio.timeout(self._service.limits.send_timeout_s):
            await self._socket.send_text(json.dumps(message))

    def _hear(self, event: dict[str, Any]) -> None:
        if not self._news.full():
            self._news.put_nowait(event)

    async def _tell_news(self) -> None:
        while True:
            await self._send(await self._news.get())

    # --- In --------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code") or _GOING_AWAY)
            if (content := message.get("bytes")) is not None:
                await self._take_frame(content)
            else:
                await self._take_text(message.get("text") or "")

    async def _take_frame(self, content: bytes) -> None:
        limits = self._service.limits
        if len(content) > limits.max_frame_bytes:
            raise VideoError(f"a frame has at most {limits.max_frame_bytes} bytes")
        frame = unpack(content)
        await self._service.frames.pace(self._hosted.record.owner)
        pixels = None
        if frame.frame_id >= self._hosted.record.next_id:
            pixels = background(self._service.decoders.pixels(frame))
        await self._frames.put(_Incoming(frame, pixels, time.perf_counter()))

    async def _take_text(self, text: str) -> None:
        try:
            request = json.loads(text)
            if not isinstance(request, dict):
                raise Problem(400, "bad_message", "a message is a JSON object with a type")
            await self._do(request)
        except (ValueError, RecursionError):
            await self._refuse(Problem(400, "bad_message", "the message is no JSON"), None)
        except SpatialTTTError as error:
            await self._refuse(error, request.get("ref") if isinstance(request, dict) else None)

    async def _do(self, request: dict[str, Any]) -> None:
        kind = request.pop("type", None)
        if kind == "ask":
            self._begin_answer(request)
        elif kind == "cancel":
            task = self._answers.get(str(request.get("ref")))
            if task is not None:
                task.cancel()
        elif kind == "skip":
            ack = await self._hosted.skip(_checked(Skip, request).to)
            await self._send({"type": "ack"} | ack.to_json())
        elif kind == "save":
            await self._service.pool.save(self._hosted)
        elif kind == "ping":
            await self._send({"type": "pong"})
        else:
            known = "ask, cancel, skip, save and ping"
            raise Problem(400, "bad_message", f"no message type {kind!r}; known are {known}")

    async def _refuse(self, error: SpatialTTTError, ref: Any) -> None:
        message: dict[str, Any] = {"type": "error", "error": as_problem(error).to_dict()}
        if isinstance(ref, str):
            message["ref"] = ref[:80]
        await self._send(message)

    # --- Frames ----------------------------------------------------------------------------------

    async def _feed(self) -> None:
        metrics = self._service.metrics
        while True:
            incoming = await self._frames.get()
            frame = incoming.frame

            async def load(task: asyncio.Task[Pixels] | None = incoming.pixels) -> Pixels:
                if task is None:
                    raise VideoError("a frame seen before; send it again under the next id")
                return await task

            try:
                ack = await self._hosted.watch(frame.frame_id, frame.time, load)
            except SpatialTTTError as error:
                message = {"type": "refused", "id": frame.frame_id}
                await self._send(message | {"error": as_problem(error).to_dict()})
                metrics.frames.labels("not_taken").inc()
                continue
            metrics.frames.labels(ack.status).inc()
            metrics.frame_seconds.observe(time.perf_counter() - incoming.arrived)
            await self._send({"type": "ack"} | ack.to_json())

    # --- Questions -------------------------------------------------------------------------------

    def _begin_answer(self, request: dict[str, Any]) -> None:
        limits = self._service.limits
        ref = request.pop("ref", "")
        if not isinstance(ref, str) or len(ref) > 80:
            raise Problem(400, "bad_message", "ref is a text of at most 80 characters")
        if ref in self._answers or len(self._answers) >= limits.asks_per_connection:
            raise Problem(
                429, "busy", f"{len(self._answers)} answers are on their way; wait for one", ref=ref
            )
        question = _checked(Question, request)
        words = check_question(question.question, limits.max_question_chars)
        self._service.requests.check(self._hosted.record.owner)
        task = background(self._answer(ref, words, question))
        self._answers[ref] = task
        task.add_done_callback(lambda _: self._answers.pop(ref, None))

    async def _answer(self, ref: str, words: str, question: Question) -> None:
        decoding = question.decoding(self._service.limits.max_new_tokens)
        events = answer_events(self._hosted, words, decoding, self._service.metrics)
        try:
            async with aclosing(events) as source:
                async for event in source:
                    await self._send(event | {"ref": ref})
        except SpatialTTTError as error:
            await self._refuse(error, ref)
        except TimeoutError:
            await self._close(_TOO_SLOW, "too slow: nothing was read for too long")
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # a defect, unless the client left: nobody waits in vain
            if self._socket.client_state is WebSocketState.CONNECTED:
                log.exception("an answer of session %s failed", self._hosted.record.session_id)
                await self._refuse(defect(error), ref)
            raise


def _checked(model: Any, values: dict[str, Any]) -> Any:
    """A message's fields by its schema; raises a 400 Problem."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the message"
        raise Problem(400, "bad_message", f"{where}: {first['msg']}") from error
