"""Endless sources: RTSP and other network streams with reconnect, webcams; a bounded queue between.

camera -> decode thread -> sampled -> queue (bounded: drop the oldest, or block) -> reader
A lost stream is opened again with growing waits; its clock continues where it would have been.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import av.error

from spatial_ttt.errors import VideoError
from spatial_ttt.video.decode import Picture, open_video, public_name
from spatial_ttt.video.options import ReadOptions, SourceStats
from spatial_ttt.video.sampling import sample_fps

log = logging.getLogger(__name__)

_MAX_BACKOFF_S = 30.0
_CLOCK_JUMP_S = 10.0
"""A stream's clock that leaps further than this was reset; its times are anchored anew."""
_LEAST_STEP_S = 1e-3
"""Frames that arrive in one burst without times of their own still follow each other."""


class StreamClock:
    """Seconds since the stream began, rising, from a sender's clock that may restart or be absent.

    Times follow the sender's (they are exact), anchored at the arrival of each connection's first
    frame that carries one; a frame without a time gets its arrival.
    """

    def __init__(self) -> None:
        self._start: float | None = None  # arrival of the very first frame
        self._anchor: tuple[float, float] | None = None  # (sender's seconds, stream's seconds)
        self._last: float | None = None

    def reconnected(self) -> None:
        """The sender's clock starts anew."""
        self._anchor = None

    def time(self, sender: float | None, arrival: float) -> float:
        """Stream time of a frame stamped `sender` seconds (or None) that arrived at `arrival`."""
        if self._start is None:
            self._start = arrival
        earliest = 0.0 if self._last is None else self._last + _LEAST_STEP_S
        since_start = max(arrival - self._start, earliest)
        now = since_start
        if sender is not None:
            if self._anchor is not None:
                now = self._anchor[1] + sender - self._anchor[0]
            if self._anchor is None or not earliest <= now <= since_start + _CLOCK_JUMP_S:
                self._anchor = (sender, since_start)
                now = since_start
        self._last = now
        return now


class FrameQueue:
    """Pictures between a camera that does not wait and a reader that may be slow."""

    def __init__(self, options: ReadOptions, stats: SourceStats) -> None:
        self._pictures: deque[Picture] = deque()
        self._changed = threading.Condition()
        self._options = options
        self._stats = stats
        self._closed = False
        self._error: VideoError | None = None

    def put(self, picture: Picture) -> bool:
        """Add a picture, dropping the oldest or waiting when full; False once closed."""
        with self._changed:
            while len(self._pictures) >= self._options.queue_frames and not self._closed:
                if self._options.drop == "oldest":
                    self._pictures.popleft()
                    self._stats.frames_dropped += 1
                else:
                    self._changed.wait()
            self._pictures.append(picture)
            self._changed.notify_all()
            return not self._closed

    def close(self, error: VideoError | None = None) -> None:
        """No more pictures; readers get what is queued, then the end or `error`."""
        with self._changed:
            self._closed = True
            self._error = self._error or error
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Picture]:
        while True:
            with self._changed:
                while not self._pictures and not self._closed:
                    self._changed.wait()
                if not self._pictures:
                    if self._error is not None:
                        raise self._error
                    return
                picture = self._pictures.popleft()
                self._changed.notify_all()
            yield picture


class LiveReader:
    """Reads one live target in a thread of its own until closed or lost for good."""

    def __init__(
        self, target: str, fps: float | None, options: ReadOptions, stats: SourceStats
    ) -> None:
        self.queue = FrameQueue(options, stats)
        self._target = target
        self._name = public_name(target)
        self._fps = fps
        self._options = options
        self._stats = stats
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"video {self._name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading and wait for the thread."""
        self._stop.set()
        self.queue.close()
        # A read that hangs ends at its timeout; the thread is a daemon and holds nobody up.
        self._thread.join(timeout=self._options.timeout_s + 1)

    def _run(self) -> None:
        try:
            pictures: Iterator[Picture] = self._pictures()
            if self._fps is not None:
                pictures = sample_fps(pictures, self._fps, time=lambda picture: picture.time)
            for picture in pictures:
                if not self.queue.put(picture):
                    break
        except VideoError as error:
            self.queue.close(error)
        finally:
            self.queue.close()

    def _pictures(self) -> Iterator[Picture]:
        """Pictures over all connections; raises VideoError when the stream stays lost."""
        clock = StreamClock()
        failures = 0
        reason = "the stream ended"
        while True:
            before = self._stats.frames_decoded
            try:
                yield from self._connection(clock)
                reason = "the stream ended"
            except VideoError as error:
                reason = str(error)
            if self._stop.is_set():
                return
            failures = 0 if self._stats.frames_decoded > before else failures
            if failures >= self._options.max_reconnects:
                break
            wait = min(self._options.backoff_s * 2**failures, _MAX_BACKOFF_S)
            failures += 1
            log.warning("%s: %s; trying again in %.1f s", self._name, reason, wait)
            if self._stop.wait(wait):
                return
            self._stats.reconnects += 1
        raise VideoError(
            f"{self._name} is lost after {failures} attempts to reconnect ({reason}); "
            f"{self._stats.frames_decoded} frames were read, until {self._stats.last_time:.1f} s"
        )

    def _connection(self, clock: StreamClock) -> Iterator[Picture]:
        """Pictures of one connection, until it ends or fails."""
        target, device = device_of(self._target)
        timeout = (self._options.timeout_s, self._options.timeout_s)
        clock.reconnected()
        container, stream = open_video(
            target, with_defaults(target, self._options), format=device, timeout=timeout
        )
        with container:
            for packet in self._packets(container, stream):
                try:
                    frames = packet.decode()
                except av.error.FFmpegError:
                    self._stats.corrupt += 1
                    continue
                for frame in frames:
                    if frame.is_corrupt:
                        self._stats.corrupt += 1
                        continue
                    self._stats.frames_decoded += 1
                    self._stats.last_time = clock.time(frame.time, time.monotonic())
                    yield Picture(self._stats.last_time, frame)

    def _packets(self, container: Any, stream: Any) -> Iterator[Any]:
        packets = container.demux(stream)
        while not self._stop.is_set():
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.FFmpegError as error:
                raise VideoError(f"the connection broke ({error})") from error
            yield packet


def is_live(spec: str) -> bool:
    """Whether `spec` names a camera or a network stream rather than a file."""
    prefixes = ("rtsp://", "rtsps://", "rtmp://", "srt://", "udp://", "rtp://", "camera:")
    return spec.startswith((*prefixes, "/dev/video"))


def device_of(spec: str) -> tuple[str, str | None]:
    """(what FFmpeg opens, its input format) of a live spec."""
    if spec.startswith("camera:") and sys.platform == "darwin":
        return spec.removeprefix("camera:"), "avfoundation"
    if spec.startswith("camera:"):
        number = spec.removeprefix("camera:")
        if not number.isdigit():
            raise VideoError(f"{spec}: a camera is named by its number, e.g. camera:0")
        return f"/dev/video{number}", "v4l2"
    return spec, "v4l2" if spec.startswith("/dev/video") else None


def with_defaults(target: str, options: ReadOptions) -> ReadOptions:
    """`options` with RTSP over TCP unless the caller chose otherwise: lost UDP packets smear."""
    if not target.startswith("rtsp"):
        return options
    return replace(options, format_options={"rtsp_transport": "tcp"} | dict(options.format_options))
