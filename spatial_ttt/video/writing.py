"""H.264 mp4 with true timestamps and the same bytes on every run.

frames (uint8 [H, W, 3]) + times -> one-threaded x264 -> mp4 -> renamed into place when whole
One thread per encoder, for x264's output depends on its thread count; run encoders side by side.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from spatial_ttt.errors import VideoError
from spatial_ttt.video.frame import Frame, Pixels, check_pixels

TIME_BASE = Fraction(1, 90_000)
"""Seconds per clock tick in our files: whole numbers of it make every usual frame rate."""


_SCALING = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeOptions:
    """How hard x264 works and how much it keeps."""

    crf: int = 20
    """Quality: 0 lossless, 18 looks lossless, 23 usual, 51 worst."""
    preset: str = "veryfast"
    keyframe_interval: int = 30
    """At most so many frames from one seekable frame to the next."""


class YuvConverter:
    """Turns arrays uint8 [H, W, 3] into PyAV frames in the encoder's colours, yuv420p."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, pixels: Pixels) -> Any:
        picture = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(pixels), "rgb24")
        return self._reformatter.reformat(
            picture, format="yuv420p", interpolation=_SCALING, threads=1
        )


class Mp4Writer:
    """Encodes frames one by one into a path or an open binary file.

    To a path, the file appears under its name only when closed without an error. All frames have
    even sides (4:2:0 colour needs it); with `size` = (height, width) frames are scaled to it.
    """

    def __init__(
        self,
        target: Any,
        *,
        size: tuple[int, int] | None = None,
        options: EncodeOptions | None = None,
    ) -> None:
        self._options = options or EncodeOptions()
        self._path = Path(target) if isinstance(target, str | Path) else None
        self._temporary = (
            None
            if self._path is None
            else self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        )
        self._size = size
        self._converter = YuvConverter()
        self._reformatter = VideoReformatter()
        self._container = av.open(
            self._temporary.as_posix() if self._temporary is not None else target,
            "w",
            format="mp4",
            container_options={"fflags": "+bitexact", "movflags": "+faststart"}
            if self._path is not None
            else {"fflags": "+bitexact"},
        )
        self._stream: Any = None
        self._shape: tuple[int, ...] = ()
        self._last_ticks = -1

    def add(self, pixels: Pixels, time: float) -> None:
        """Append one frame uint8 [H, W, 3] seen at `time` seconds, later than the one before."""
        self.add_picture(self._converter(check_pixels(pixels)), time)

    def add_picture(self, picture: Any, time: float) -> None:
        """Append one PyAV frame, best in yuv420p; several writers may share it."""
        if self._stream is None:
            self._open_stream(picture)
        if (picture.height, picture.width) != self._shape:
            raise VideoError(
                f"frame is {picture.height}x{picture.width}, the first was "
                f"{self._shape[0]}x{self._shape[1]} (height x width)"
            )
        ticks = round(time / TIME_BASE)
        if ticks <= self._last_ticks:
            raise VideoError(
                f"time {time:.6f} s is not later than the frame before; times must rise"
            )
        self._last_ticks = ticks
        encoded = self._reformatter.reformat(
            picture,
            width=self._stream.width,
            height=self._stream.height,
            format="yuv420p",
            interpolation=_SCALING,
            threads=1,
        )
        encoded.pts, encoded.time_base = ticks, TIME_BASE
        self._container.mux(self._stream.encode(encoded))

    def _open_stream(self, picture: Any) -> None:
        self._shape = (picture.height, picture.width)
        height, width = self._size or self._shape
        if height % 2 or width % 2:
            raise VideoError(
                f"H.264 in 4:2:0 needs even sides, got {height}x{width} (height x width); "
                "crop or resize by one pixel"
            )
        options = self._options
        stream = self._container.add_stream("libx264", rate=Fraction(30))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = TIME_BASE
        stream.codec_context.thread_count = 1
        stream.codec_context.gop_size = options.keyframe_interval
        stream.codec_context.max_b_frames = 0  # first time stays 0, no edit list, cheap to decode
        stream.codec_context.options = {"crf": str(options.crf), "preset": options.preset}
        self._stream = stream

    def close(self) -> None:
        """Finish the file and put it in place."""
        if self._stream is None:
            self.abort()
            raise VideoError("no frames were written; an mp4 needs at least one")
        self._container.mux(self._stream.encode(None))
        self._container.close()
        if self._temporary is not None and self._path is not None:
            self._temporary.replace(self._path)

    def abort(self) -> None:
        """Give up: close and remove what was written."""
        self._container.close()
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Mp4Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def write_mp4(
    path: Any,
    frames: Iterable[Frame | Pixels],
    *,
    fps: float | None = None,
    times: Iterable[float] | None = None,
    options: EncodeOptions | None = None,
) -> None:
    """Write frames as H.264 mp4: `Frame`s at their own times, arrays at `times` or at `fps`."""
    if fps is not None and times is not None:
        raise VideoError("fps and times both say when frames were seen; give one")
    given = iter(times) if times is not None else None
    with Mp4Writer(path, options=options) as writer:
        for index, frame in enumerate(frames):
            pixels = frame.pixels if isinstance(frame, Frame) else frame
            if given is not None:
                time = next(given, None)
                if time is None:
                    raise VideoError(f"there are more frames than times; frame {index} has none")
            elif fps is not None:
                time = index / fps
            elif isinstance(frame, Frame):
                time = frame.time
            else:
                raise VideoError("arrays carry no times; give fps or times")
            writer.add(pixels, time)
