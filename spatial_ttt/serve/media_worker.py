"""A process that decodes what clients send, so that a bad file can kill nothing else.

    python -m spatial_ttt.serve.media_worker        jobs on stdin, pictures on stdout

Messages both ways: u32 length of a JSON head, u64 length of the bytes after it, head, bytes. No pickle.
Its memory is limited, it may write no file, and FFmpeg may open nothing but the bytes it was given.
"""

from __future__ import annotations

import io
import json
import resource
import struct
import sys
import warnings
from collections.abc import Iterator
from typing import Any, BinaryIO

LENGTHS = struct.Struct("<IQ")
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,gif,h264,hevc,ivf"
_MEMORY_BYTES = 6 << 30

Head = dict[str, Any]


def read_message(stream: BinaryIO) -> tuple[Head, bytes] | None:
    """The next message; None at the end."""
    lengths = stream.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return None
    head, body = LENGTHS.unpack(lengths)
    return json.loads(stream.read(head)), stream.read(body)


def write_message(stream: BinaryIO, head: Head, body: Any = b"") -> None:
    """Send a message."""
    text = json.dumps(head).encode()
    view = memoryview(body).cast("B")
    stream.write(LENGTHS.pack(len(text), view.nbytes))
    stream.write(text)
    stream.write(view)
    stream.flush()


def decode_image(content: bytes, max_pixels: int) -> tuple[Head, Any]:
    """A JPEG, PNG or WebP as RGB, upright."""
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "WEBP")) as image:
            if image.width * image.height > max_pixels:
                return _refusal(
                    f"the picture has {image.width}x{image.height} pixels, at most {max_pixels} are taken"
                )
            pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError:
        return _refusal("these bytes are no JPEG, PNG or WebP picture")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return _refusal(f"the picture is damaged: {error}")
    return {"height": pixels.shape[0], "width": pixels.shape[1]}, np.ascontiguousarray(pixels)


def decode_clip(job: Head, content: bytes) -> Iterator[tuple[Head, Any]]:
    """The frames of a video file, sampled."""
    from spatial_ttt.video import ReadOptions, open_source

    options = ReadOptions(
        on_corrupt="skip",
        format_options={"format_whitelist": _CONTAINERS, "protocol_whitelist": "none"},
    )
    yield from _frames(
        open_source(content, fps=job.get("fps"), num_frames=job.get("num_frames"), options=options),
        job["max_pixels"],
    )


def watch_camera(job: Head) -> Iterator[tuple[Head, Any]]:
    """The frames of a live source, as long as it lasts."""
    from spatial_ttt.video import ReadOptions, open_source

    options = ReadOptions(
        max_reconnects=job["max_reconnects"], backoff_s=0.2, timeout_s=job["timeout_s"]
    )
    source = open_source(job["url"], fps=job["fps"], options=options)
    for head, pixels in _frames(source, job["max_pixels"]):
        yield head | {"reconnects": source.stats.reconnects}, pixels


def _frames(source: Any, max_pixels: int) -> Iterator[tuple[Head, Any]]:
    with source:
        for frame in source:
            height, width, _ = frame.pixels.shape
            if height * width > max_pixels:
                yield _refusal(
                    f"frames have {height}x{width} pixels, at most {max_pixels} are taken"
                )
                return
            yield {"time": frame.time, "height": height, "width": width}, frame.pixels
    yield {"end": True}, b""


def walk_home(job: Head) -> Iterator[tuple[Head, Any]]:
    """The frames of a walk through a procedural home, or its plan alone."""
    from spatial_ttt.serve.records import WalkSpec
    from spatial_ttt.serve.walks import film_walk, plan_of_walk

    spec = WalkSpec(**job["spec"])
    if job["job"] == "plan":
        yield {"plan": plan_of_walk(spec)}, b""
        return
    yield from film_walk(spec)
    yield {"end": True}, b""


def _refusal(message: str) -> tuple[Head, bytes]:
    return {"error": message}, b""


def answers(job: Head, content: bytes) -> Iterator[tuple[Head, Any]]:
    """What a job comes to."""
    from spatial_ttt.errors import SpatialTTTError

    kind = job["job"]
    try:
        if kind == "image":
            yield decode_image(content, job["max_pixels"])
        elif kind == "clip":
            yield from decode_clip(job, content)
        elif kind == "camera":
            yield from watch_camera(job)
        else:
            yield from walk_home(job)
    except SpatialTTTError as error:
        yield _refusal(str(error))
    except ModuleNotFoundError as error:
        yield _refusal(
            f"this needs {error.name}; install it with: pip install 'spatial-ttt[scenes]'"
        )
    except MemoryError:
        yield _refusal("decoding took more memory than a decoder may have")


def limit_process() -> None:
    """Bound what a decoder that was taken over could do."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Serve jobs until stdin ends."""
    warnings.simplefilter("ignore")
    if "--trusted" not in sys.argv:  # walks draw with OpenGL, whose driver keeps caches
        limit_process()
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    while (message := read_message(requests)) is not None:
        for head, body in answers(*message):
            write_message(replies, head, body)


if __name__ == "__main__":
    main()
