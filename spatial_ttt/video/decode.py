"""Video files through PyAV: every picture with its true presentation time, damage noticed.

demux all packets -> decode the video's -> Picture(time, PyAV frame) -> sampled -> RGB
A truncated or corrupt file raises, saying how far it was read, or is skipped over and counted.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import av
import av.error

from spatial_ttt.errors import VideoError
from spatial_ttt.video.options import ReadOptions, SourceStats

log = logging.getLogger(__name__)

Target = str | bytes
"""A path, URL or device, or the bytes of a video file."""

_ONE_FRAME_PER_PACKET = frozenset({"h264", "hevc", "mpeg4", "mjpeg"})
_MISSING_END_S = 0.5
"""A Matroska file that ends so much before its declared duration was cut off."""


class Picture(NamedTuple):
    """A picture that is not RGB yet: most are sampled away before they need be."""

    time: float  # s since the first picture
    content: Any  # av.VideoFrame, path of an image, or pixels


@dataclass(slots=True)
class _End:
    """How far the packets of a file reached, to compare with what its header declares."""

    video_packets: int = 0
    time: float = 0.0  # s, end of the last packet of any stream


def open_video(target: Target, options: ReadOptions, **extra: Any) -> Any:
    """Open a file, its bytes, a URL or a device; returns (container, video stream) or raises VideoError."""
    try:
        opened = io.BytesIO(target) if isinstance(target, bytes) else target
        container = av.open(opened, options=dict(options.format_options), **extra)
    except (av.error.FFmpegError, ValueError) as error:
        hint = (
            ""
            if "://" in str(target)
            else "; it may be truncated, still being written, or no video"
        )
        raise VideoError(
            f"cannot open {public_name(target)}: {_reason(error)}{hint}; 0 frames were read"
        ) from error
    if not container.streams.video:
        container.close()
        raise VideoError(f"{public_name(target)} has no video stream; give a file that has one")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    return container, stream


def decode_file(path: Target, options: ReadOptions, stats: SourceStats) -> Iterator[Picture]:
    """Yield every picture of a file in order of presentation; the first has time 0."""
    container, stream = open_video(path, options)
    with container:
        start: float | None = None
        frame_period = 1 / float(stream.average_rate or 25)
        end = _End()
        for frame in _decoded_frames(path, container, stream, options, stats, end):
            seconds = frame.time
            if seconds is None:  # raw streams carry no times
                seconds = (start or 0.0) + (
                    stats.last_time + frame_period if stats.frames_decoded else 0
                )
            start = seconds if start is None else start
            stats.last_time = seconds - start
            stats.frames_decoded += 1
            yield Picture(stats.last_time, frame)
        _check_end(path, container, stream, options, stats, end)


def count_frames(path: Target, options: ReadOptions) -> int:
    """Frames that `decode_file` will yield. Reads packets only where one packet is one frame."""
    stats = SourceStats()
    container, stream = open_video(path, options)
    quick = stream.codec_context.name in _ONE_FRAME_PER_PACKET and options.on_corrupt == "raise"
    if not quick:
        container.close()
        return sum(1 for _ in decode_file(path, options, stats))
    with container:
        end = _End()
        count = 0
        for packet in _packets(path, container, options, stats, end):
            count += packet.stream is stream and not packet.is_discard
        _check_end(path, container, stream, options, stats, end)
    return count


def _decoded_frames(
    path: Target, container: Any, stream: Any, options: ReadOptions, stats: SourceStats, end: _End
) -> Iterator[Any]:
    """Whole frames of `stream`; damaged ones raise or are counted, as `options` says."""
    for packet in _packets(path, container, options, stats, end, flush=True):
        if packet.stream is not stream:
            continue
        try:
            frames = packet.decode()
        except av.error.FFmpegError as error:
            _damaged(path, f"a packet cannot be decoded ({_reason(error)})", options, stats)
            continue
        for frame in frames:
            if frame.is_corrupt:
                _damaged(path, "a frame was decoded only in part", options, stats)
            else:
                yield frame


def _packets(
    path: Target,
    container: Any,
    options: ReadOptions,
    stats: SourceStats,
    end: _End,
    *,
    flush: bool = False,
) -> Iterator[Any]:
    """Packets of all streams; `flush` adds the empty ones that drain the decoders."""
    packets = container.demux()
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.error.FFmpegError as error:
            _damaged(path, f"reading stops there ({_reason(error)})", options, stats)
            return
        if packet.size:
            end.video_packets += packet.stream is container.streams.video[0]
            if packet.pts is not None:
                stop = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                end.time = max(end.time, stop)
        elif not flush:
            continue
        yield packet


def _check_end(
    path: Target, container: Any, stream: Any, options: ReadOptions, stats: SourceStats, end: _End
) -> None:
    """Notice a file that stops before the end that its header declares."""
    declared = stream.frames
    if declared and end.video_packets < declared and "mp4" in container.format.name:
        _damaged(
            path,
            f"the file is cut off ({end.video_packets} of its {declared} frames are there)",
            options,
            stats,
        )
    if container.duration and "matroska" in container.format.name:
        duration = container.duration / 1e6
        if end.time < duration - _MISSING_END_S:
            _damaged(
                path,
                f"the file is cut off (it declares {duration:.2f} s, data end at {end.time:.2f} s)",
                options,
                stats,
            )


def _damaged(path: Target, what: str, options: ReadOptions, stats: SourceStats) -> None:
    """Raise or count one piece of damage."""
    stats.corrupt += 1
    read = f"{stats.frames_decoded} frames were read, until {stats.last_time:.3f} s"
    if options.on_corrupt == "raise":
        raise VideoError(
            f"{public_name(path)} is damaged: {what}; {read}. Use on_corrupt='skip' to take what can be decoded"
        )
    log.warning("%s: %s; %s", public_name(path), what, read)


def public_name(target: Target) -> str:
    """`target` for messages: without the user name and password that a camera's URL may carry."""
    if isinstance(target, bytes):
        return f"video of {len(target)} bytes"
    return re.sub(r"://[^/@]*@", "://", target)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
