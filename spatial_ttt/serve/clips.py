"""A whole clip in one request: decoded in a process of its own, watched frame by frame."""

from __future__ import annotations

from contextlib import aclosing

from spatial_ttt.errors import VideoError
from spatial_ttt.serve.hosted import HostedSession
from spatial_ttt.serve.schemas import ClipView
from spatial_ttt.serve.service import Service
from spatial_ttt.video.frame import Frame


async def watch_clip(
    service: Service, hosted: HostedSession, content: bytes, fps: float
) -> ClipView:
    """Watch a video file's bytes, sampled at `fps`; raises VideoError where they are no video."""
    if not content:
        raise VideoError("the body is empty; send the bytes of a video file")
    record = hosted.record
    start = record.seconds_seen + 1 / fps if record.num_frames else 0.0
    watched = refused = 0
    async with aclosing(service.decoders.clip(content, fps=fps)) as frames:
        async for frame in frames:
            ack = await hosted.watch_next(Frame(frame.pixels, start + frame.time))
            service.metrics.frames.labels(ack.status).inc()
            watched += ack.status == "watched"
            refused += ack.status == "refused"
    return ClipView(
        watched=watched,
        refused=refused,
        next=record.next_id,
        seen=hosted.seen,
        saved=record.saved_id,
        seconds_seen=record.seconds_seen,
    )
