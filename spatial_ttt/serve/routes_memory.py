"""Looking into a session: its timeline, its latest frame, a map it draws when asked, sources it watches."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Body
from fastapi.responses import Response
from PIL import Image
from pydantic import Field

from spatial_ttt.errors import VideoError
from spatial_ttt.generate import Decoding
from spatial_ttt.serve.answers import Event, plain_text, server_sent, whole_answer
from spatial_ttt.serve.dependencies import EVENT_STREAM, REFUSALS
from spatial_ttt.serve.hosted import HostedSession
from spatial_ttt.serve.problems import not_found
from spatial_ttt.serve.records import WalkSpec
from spatial_ttt.serve.routes_sessions import Caller, InUse, SessionId
from spatial_ttt.serve.schemas import CameraSource, SessionView, Strict, WalkSource, view_session
from spatial_ttt.serve.service import Service
from spatial_ttt.serve.streams import PatientStream
from spatial_ttt.serve.surroundings import CATEGORIES, align, survey
from spatial_ttt.video.frame import Pixels

router = APIRouter(prefix="/v1", tags=["memory"], responses=REFUSALS)

_MAP_TOKENS = 12
_VIEW_WIDTH = 480


class MapRequest(Strict):
    """What to ask for."""

    categories: list[Annotated[str, Field(min_length=1, max_length=40)]] = Field(
        default_factory=lambda: list(CATEGORIES), min_length=1, max_length=40
    )


@router.get("/info")
async def info(caller: Caller) -> dict[str, Any]:
    """The model, its price per session, what is free, and names of cameras."""
    service = caller.service
    pool, settings = service.pool, service.settings
    return {
        "model": service.loaded.name,
        "is_trained": service.loaded.is_trained,
        "device": str(service.loaded.model.device),
        "frame_size": service.loaded.processor.frames.size,
        "budget_bytes": pool.ledger.total,
        "promised_bytes": pool.ledger.promised,
        "engine_bytes": pool.ledger.aside,
        "max_frames": settings.max_frames,
        "session_bytes": pool.budget.bytes_for(settings.max_frames),
        "snapshot_s": settings.snapshot_s,
        "idle_s": settings.idle_s,
        "cameras": service.sources.cameras,
        "limits": asdict(settings.limits),
    }


@router.get("/sessions/{session_id}/memory")
async def timeline(caller: Caller, session_id: SessionId) -> dict[str, Any]:
    """What the memory did, slot by slot: update, surprise and gate of every TTT layer."""
    record = caller.service.pool.record_of(caller.owner, session_id)
    return {"slots": record.timeline.notes()}


@router.get(
    "/sessions/{session_id}/frame",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}, 204: {"description": "None in memory"}},
)
async def latest_frame(caller: Caller, session_id: SessionId) -> Response:
    """The latest frame that was watched, as JPEG; nothing (204) after the session slept."""
    service = caller.service
    service.pool.record_of(caller.owner, session_id)
    hosted = service.pool.open.get(session_id)
    if hosted is None or hosted.last_frame is None:
        return Response(status_code=204)
    jpeg = await asyncio.to_thread(_as_jpeg, hosted.last_frame)
    return Response(jpeg, media_type="image/jpeg", headers={"cache-control": "no-store"})


def _as_jpeg(pixels: Pixels) -> bytes:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((_VIEW_WIDTH, 4 * _VIEW_WIDTH))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)
    return out.getvalue()


@router.post("/sessions/{session_id}/source")
async def start_source(
    caller: Caller, hosted: InUse, body: Annotated[CameraSource | WalkSource, Body()]
) -> SessionView:
    """Let the server watch a camera that its operator named, or a walk through a procedural home."""
    service = caller.service
    if isinstance(body, CameraSource):
        service.sources.watch_camera(hosted, body.camera, body.fps)
    else:
        service.sources.watch_walk(hosted, _walk(service, body), body.pace)
    return view_session(hosted.record, hosted, service.pool.ledger.of(hosted.record.session_id))


def _walk(service: Service, body: WalkSource) -> WalkSpec:
    """A walk drawn in the shape of the model's frames, large enough to look at."""
    height, width = service.loaded.processor.frames.size or (360, 480)
    scale = max(1, -(-_VIEW_WIDTH // width))
    return WalkSpec(body.walk, body.fps, body.seconds, width * scale, height * scale)


@router.delete("/sessions/{session_id}/source", status_code=204, response_class=Response)
async def stop_source(caller: Caller, hosted: InUse) -> None:
    """Stop what the server watches for the session; what was seen stays."""
    await caller.service.sources.stop(hosted)


@router.get("/sessions/{session_id}/plan")
async def plan(caller: Caller, session_id: SessionId) -> dict[str, Any]:
    """What is true of the procedural home that the session walked through."""
    record = caller.service.pool.record_of(caller.owner, session_id)
    if record.walk is None:
        raise not_found("plan")
    return await caller.service.decoders.plan(record.walk)


@router.post(
    "/sessions/{session_id}/map",
    response_class=Response,
    responses=EVENT_STREAM,
)
async def draw_map(caller: Caller, hosted: InUse, body: MapRequest) -> Response:
    """Ask the memory about its surroundings and place what it names on a map, as events."""
    service = caller.service
    categories = tuple(dict.fromkeys(plain_text(c) for c in body.categories))
    events = _map_events(service, hosted, categories)
    return PatientStream(server_sent(events), service.limits.send_timeout_s)


async def _map_events(
    service: Service, hosted: HostedSession, categories: tuple[str, ...]
) -> AsyncGenerator[Event, None]:
    moment = await hosted.fork(hosted.record.copy())  # all questions are about one moment

    async def ask(question: str) -> str:
        decoding = Decoding(max_new_tokens=_MAP_TOKENS)
        return str((await whole_answer(moment, question, decoding, service.metrics))["answer"])

    async with aclosing(survey(ask, categories)) as events:
        async for event in events:
            hosted.touch()
            if event["type"] == "map" and hosted.record.walk is not None:
                event = await _with_truth(service, hosted.record.walk, event)
            yield event


async def _with_truth(service: Service, walk: dict[str, Any], event: Event) -> Event:
    """The map turned and moved onto the plan, by landmarks of which there is one in truth."""
    try:
        truth = await service.decoders.plan(walk)
    except VideoError:  # drawn elsewhere: no renderer here
        return event
    singles = {}
    for item in truth["objects"]:
        singles[item["category"]] = None if item["category"] in singles else item["center"]
    pairs = [
        (index, singles[p["category"]])
        for index, p in enumerate(event["places"])
        if singles.get(p["category"]) is not None
    ]
    if len(pairs) < 2:
        return event | {"truth": truth}
    points = np.array([[p["x"], p["y"]] for p in event["places"]])
    chosen = [index for index, _ in pairs]
    target = np.array([center for _, center in pairs])
    moved = align(points, chosen, target)
    error = float(np.linalg.norm(moved[chosen] - target, axis=1).mean())
    places = [
        place | {"x": round(float(x), 3), "y": round(float(y), 3)}
        for place, (x, y) in zip(event["places"], moved, strict=True)
    ]
    return event | {"places": places, "truth": truth, "error_m": round(error, 3)}
