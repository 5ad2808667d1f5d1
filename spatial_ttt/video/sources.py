"""`open_source`: one way in for files, folders, cameras, streams and arrays.

spec -> pictures with true times -> sampled by fps or count -> RGB frames of one size
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from spatial_ttt.errors import VideoError
from spatial_ttt.video.convert import RgbConverter, Size, check_size, resize_pixels
from spatial_ttt.video.decode import Picture, count_frames, decode_file, public_name
from spatial_ttt.video.frame import Frame, Pixels, check_frame
from spatial_ttt.video.live import LiveReader, is_live
from spatial_ttt.video.options import ReadOptions, SourceStats
from spatial_ttt.video.sampling import pick, sample_fps, uniform_indices
from spatial_ttt.video.stills import (
    IMAGE_SUFFIXES,
    as_clip,
    list_images,
    read_image,
    still_times,
)


class FrameSource(Iterator[Frame]):
    """An open source: iterate it for frames, close it when done (or use it in `with`).

    Every frame is checked: a proper picture, of the first one's size. Times never fall. A source
    that ends without a single frame raises VideoError.
    """

    def __init__(
        self,
        name: str,
        pictures: Iterator[Picture],
        convert: Callable[[Any], Pixels],
        stats: SourceStats,
        close: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.is_live = close is not None
        self.stats = stats
        self._pictures = pictures
        self._convert = convert
        self._close = close
        self._last: Frame | None = None

    def __next__(self) -> Frame:
        picture = next(self._pictures, None)
        if picture is None:
            if self._last is None:
                raise VideoError(f"{self.name} has no frames; nothing can be seen in it")
            raise StopIteration
        frame = check_frame(Frame(self._convert(picture.content), picture.time))
        if self._last is not None:
            self._check_size(self._last, frame)
        self._last = frame
        self.stats.frames_given += 1
        return frame

    def _check_size(self, last: Frame, frame: Frame) -> None:
        if frame.pixels.shape != last.pixels.shape:
            (h0, w0, _), (h1, w1, _) = last.pixels.shape, frame.pixels.shape
            raise VideoError(
                f"{self.name}: frame size changes from {h0}x{w0} to {h1}x{w1} (height x width) at "
                f"{frame.time:.3f} s; give `size` to bring all frames to one size"
            )

    def close(self) -> None:
        """Release the file, camera or connection."""
        if self._close is not None:
            self._close()
        closer = getattr(self._pictures, "close", None)  # generators release their file here
        if closer is not None:
            closer()

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open_source(
    spec: Any,
    *,
    fps: float | None = None,
    num_frames: int | None = None,
    size: Size | None = None,
    options: ReadOptions | None = None,
) -> FrameSource:
    """Open a source of frames.

    `spec` is a video file, its bytes or its URL, an image or a folder of images, a list of image files,
    `camera:0` or `/dev/video0`, `rtsp://...`, or an array [T, H, W, 3] or [T, 3, H, W] (NumPy or
    torch; uint8 or float 0..1). `fps` samples the frames nearest to every 1/fps seconds;
    `num_frames` takes so many, evenly spread; neither takes all. `size` is (height, width).
    """
    options = options or ReadOptions()
    check_size(size)
    if fps is not None and num_frames is not None:
        raise VideoError("fps and num_frames both say which frames to take; give one")
    if fps is not None and not fps > 0:
        raise VideoError(f"fps must be above 0, got {fps}")
    if isinstance(spec, str) and is_live(spec):
        return _live_source(spec, fps, num_frames, size, options)
    stats = SourceStats()
    if isinstance(spec, bytes) or (isinstance(spec, str | Path) and not _is_stills(spec)):
        target = spec if isinstance(spec, bytes) else str(spec)
        _check_exists(target)
        name = public_name(target)
        pictures = _in_order(name, decode_file(target, options, stats))
        total = None if num_frames is None else count_frames(target, options)
        return FrameSource(
            name, _sampled(pictures, fps, num_frames, total), RgbConverter(size), stats
        )
    name, contents = _stills(spec)
    times = still_times(len(contents), fps, options)
    pictures = _in_order(name, _timed(times, contents, stats))
    sampled = _sampled(pictures, fps, num_frames, len(contents))

    def convert(content: Any) -> Pixels:
        pixels = read_image(content) if isinstance(content, Path) else content
        return resize_pixels(pixels, size)

    return FrameSource(name, sampled, convert, stats)


def _live_source(
    spec: str,
    fps: float | None,
    num_frames: int | None,
    size: Size | None,
    options: ReadOptions,
) -> FrameSource:
    if num_frames is not None:
        raise VideoError(
            f"{public_name(spec)} has no end to spread {num_frames} frames over; give fps"
        )
    stats = SourceStats()
    reader = LiveReader(spec, fps, options, stats)
    return FrameSource(
        public_name(spec), iter(reader.queue), RgbConverter(size), stats, reader.close
    )


def _sampled(
    pictures: Iterator[Picture], fps: float | None, num_frames: int | None, total: int | None
) -> Iterator[Picture]:
    if fps is not None:
        return sample_fps(pictures, fps, time=lambda picture: picture.time)
    if num_frames is not None and total:
        return pick(pictures, uniform_indices(total, num_frames))
    return pictures


def _timed(
    times: Iterator[float], contents: Sequence[Any], stats: SourceStats
) -> Iterator[Picture]:
    for time, content in zip(times, contents, strict=True):
        stats.frames_decoded += 1
        stats.last_time = time
        yield Picture(time, content)


def _in_order(name: str, pictures: Iterator[Picture]) -> Iterator[Picture]:
    """The same pictures; time must not go backwards, which sampling relies on."""
    last = 0.0
    for picture in pictures:
        if picture.time < last:
            raise VideoError(
                f"{name}: time goes backwards, from {last:.3f} s to {picture.time:.3f} s; "
                "frames must come in the order in which they were seen"
            )
        last = picture.time
        yield picture


def _stills(spec: Any) -> tuple[str, Sequence[Any]]:
    """(name, image paths or pixel arrays) of a source that carries no times."""
    if isinstance(spec, str | Path):
        path = Path(spec)
        if path.is_dir():
            return str(path), list_images(path)
        return str(path), [path]
    if isinstance(spec, list | tuple) and spec and isinstance(spec[0], str | Path):
        return f"{len(spec)} images", [Path(item) for item in spec]
    return "array", as_clip(spec)  # type: ignore[return-value]  # an array is a sequence of frames


def _is_stills(spec: str | Path) -> bool:
    return Path(spec).is_dir() or Path(spec).suffix.lower() in IMAGE_SUFFIXES


def _check_exists(spec: str | bytes) -> None:
    if isinstance(spec, str) and "://" not in spec and not Path(spec).exists():
        raise VideoError(f"{spec} does not exist; give a video file, an image folder or a camera")
