"""Sessions over HTTP: open, push frames, ask, copy, keep, close."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Path, Query, Request
from fastapi.responses import Response

from spatial_ttt.serve.answers import answer_events, check_question, server_sent, whole_answer
from spatial_ttt.serve.clips import watch_clip
from spatial_ttt.serve.dependencies import (
    EVENT_STREAM,
    FRAME_BODY,
    REFUSALS,
    VIDEO_BODY,
    Access,
    access,
)
from spatial_ttt.serve.frames import Encoding, WireFrame
from spatial_ttt.serve.hosted import HostedSession
from spatial_ttt.serve.problems import Problem
from spatial_ttt.serve.schemas import (
    AckView,
    AnswerView,
    ClipView,
    Named,
    NewSession,
    Question,
    SessionView,
    Skip,
    SnapshotView,
    view_session,
    view_snapshot,
)
from spatial_ttt.serve.streams import PatientStream
from spatial_ttt.video.frame import Pixels

router = APIRouter(prefix="/v1", tags=["sessions"], responses=REFUSALS)

Caller = Annotated[Access, Depends(access)]
SessionId = Annotated[str, Path(max_length=64, description="As the server named it.")]
SnapshotId = SessionId


async def _in_use(caller: Caller, session_id: SessionId) -> AsyncGenerator[HostedSession, None]:
    hosted = await caller.service.pool.get(caller.owner, session_id)
    with hosted.in_use():
        yield hosted


InUse = Annotated[HostedSession, Depends(_in_use)]
"""The session of the path, awake, and kept so until the answer is sent."""
_ENCODINGS = {
    "image/jpeg": Encoding.JPEG,
    "image/png": Encoding.PNG,
    "application/octet-stream": Encoding.RAW,
}


def _view(caller: Access, session_id: str) -> SessionView:
    pool = caller.service.pool
    record = pool.record_of(caller.owner, session_id)
    return view_session(record, pool.open.get(session_id), pool.ledger.of(session_id))


@router.post("/sessions", status_code=201)
async def create_session(caller: Caller, body: NewSession) -> SessionView:
    """Open a session; 503 with the budget where there is no room."""
    hosted = await caller.service.pool.create(
        caller.owner, name=body.name, max_frames=body.max_frames, clock=body.clock
    )
    return _view(caller, hosted.record.session_id)


@router.get("/sessions")
async def list_sessions(caller: Caller) -> list[SessionView]:
    """Your sessions, the newest first."""
    return [_view(caller, r.session_id) for r, _ in caller.service.pool.records(caller.owner)]


@router.get("/sessions/{session_id}")
async def show_session(caller: Caller, session_id: SessionId) -> SessionView:
    """What a session holds and has done; does not wake it."""
    return _view(caller, session_id)


@router.delete("/sessions/{session_id}", status_code=204, response_class=Response)
async def close_session(caller: Caller, session_id: SessionId) -> None:
    """Forget a session, in memory and on disk."""
    pool = caller.service.pool
    pool.record_of(caller.owner, session_id)
    if session_id in pool.open:
        await caller.service.sources.stop(pool.open[session_id])
    await pool.close(caller.owner, session_id)


@router.put("/sessions/{session_id}/frames/{frame_id}", openapi_extra=FRAME_BODY)
async def push_frame(
    caller: Caller,
    request: Request,
    hosted: InUse,
    frame_id: Annotated[int, Path(ge=0, lt=1 << 63)],
    time: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    height: Annotated[int, Query(ge=0, le=65535)] = 0,
    width: Annotated[int, Query(ge=0, le=65535)] = 0,
) -> AckView:
    """Watch one frame: JPEG, PNG, or raw RGB with its height and width. Sent twice, it is watched once."""
    service = caller.service
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _ENCODINGS:
        raise Problem(415, "bad_type", f"content-type {kind!r}; wanted {', '.join(_ENCODINGS)}")
    content = await request.body()
    if len(content) > service.limits.max_frame_bytes:
        raise Problem(
            413, "too_large", f"a frame has at most {service.limits.max_frame_bytes} bytes"
        )
    frame = WireFrame(frame_id, time, _ENCODINGS[kind], content, (height, width))

    async def load() -> Pixels:
        return await service.decoders.pixels(frame)

    with service.metrics.frame_seconds.time():
        ack = await hosted.watch(frame_id, time, load)
    service.metrics.frames.labels(ack.status).inc()
    return AckView(**ack.to_json())


@router.post("/sessions/{session_id}/skip")
async def skip_frames(hosted: InUse, body: Skip) -> AckView:
    """Declare frames lost that will not be sent again."""
    return AckView(**(await hosted.skip(body.to)).to_json())


@router.post("/sessions/{session_id}/clips", openapi_extra=VIDEO_BODY)
async def push_clip(
    caller: Caller,
    request: Request,
    hosted: InUse,
    fps: Annotated[float, Query(gt=0, le=60)] = 2.0,
) -> ClipView:
    """Watch a video file to its end, its times after everything seen so far."""
    return await watch_clip(caller.service, hosted, await request.body(), fps)


@router.post(
    "/sessions/{session_id}/ask",
    response_model=AnswerView,
    responses=EVENT_STREAM,
)
async def ask(caller: Caller, hosted: InUse, body: Question) -> Any:
    """Ask about everything seen so far; the stream is left untouched."""
    service = caller.service
    words = check_question(body.question, service.limits.max_question_chars)
    decoding = body.decoding(service.limits.max_new_tokens)
    if not body.stream:
        done = await whole_answer(hosted, words, decoding, service.metrics)
        return {name: value for name, value in done.items() if name != "type"}
    events = answer_events(hosted, words, decoding, service.metrics)
    first = await anext(events)  # what cannot be asked is refused with a status
    return PatientStream.after(first, events, server_sent, service.limits.send_timeout_s)


@router.post("/sessions/{session_id}/fork", status_code=201)
async def fork_session(
    caller: Caller, session_id: SessionId, body: Annotated[Named, Body()]
) -> SessionView:
    """A second session that has seen the same and goes its own way."""
    twin = await caller.service.pool.fork(caller.owner, session_id, body.name)
    return _view(caller, twin.record.session_id)


@router.post("/sessions/{session_id}/save")
async def save_session(caller: Caller, hosted: InUse) -> SessionView:
    """Make everything seen so far safe now, instead of within seconds."""
    await caller.service.pool.save(hosted)
    return _view(caller, hosted.record.session_id)


@router.post("/sessions/{session_id}/sleep")
async def put_to_sleep(caller: Caller, session_id: SessionId) -> SessionView:
    """Save a session and let its memory go; whoever touches it next wakes it. Its files may then be moved."""
    pool = caller.service.pool
    hosted = await pool.get(caller.owner, session_id)
    await caller.service.sources.stop(hosted)
    if not await caller.service.caretaker.put_to_sleep(hosted):
        raise Problem(409, "in_use", "the session is in use; close its streams first")
    return _view(caller, session_id)


@router.post("/sessions/{session_id}/snapshots", status_code=201)
async def keep_snapshot(caller: Caller, session_id: SessionId, body: Named) -> SnapshotView:
    """Keep this moment, to begin other sessions from."""
    return view_snapshot(await caller.service.pool.keep(caller.owner, session_id, body.name))


@router.get("/snapshots")
async def list_snapshots(caller: Caller) -> list[SnapshotView]:
    """Your snapshots, the newest first."""
    return [view_snapshot(record) for record in caller.service.pool.kept(caller.owner)]


@router.post("/snapshots/{snapshot_id}/restore", status_code=201)
async def restore_snapshot(caller: Caller, snapshot_id: SnapshotId, body: Named) -> SessionView:
    """A new session that goes on where a snapshot was taken."""
    hosted = await caller.service.pool.restore(caller.owner, snapshot_id, body.name)
    return _view(caller, hosted.record.session_id)


@router.delete("/snapshots/{snapshot_id}", status_code=204, response_class=Response)
async def delete_snapshot(caller: Caller, snapshot_id: SnapshotId) -> None:
    """Forget a snapshot."""
    await caller.service.pool.delete_snapshot(caller.owner, snapshot_id)
