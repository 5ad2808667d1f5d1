"""A frame on the wire: 24 bytes of header, then JPEG, PNG or raw RGB. Little-endian.

    magic "SF" | version u8 | encoding u8 | height u16 | width u16 | frame id u64 | time f64 | bytes

Ids count the frames a client sent to a session: 0, 1, 2, ... A frame sent twice is watched once. The time
is in seconds since the stream began; NaN lets the server take the time of arrival. Height and width are
those of raw frames, 0 otherwise.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from spatial_ttt.errors import VideoError

MAGIC = b"SF"
VERSION = 1
_HEADER = struct.Struct("<2sBBHHQd")
HEADER_BYTES = _HEADER.size


class Encoding(IntEnum):
    """How a frame's pixels are written."""

    RAW = 0  # uint8 RGB, row by row
    JPEG = 1
    PNG = 2


@dataclass(frozen=True, slots=True)
class WireFrame:
    """One frame as it travels."""

    frame_id: int
    time: float | None  # s; None: the server's clock
    encoding: Encoding
    content: bytes | memoryview
    size: tuple[int, int] = (0, 0)  # (height, width) in pixels of a raw frame


def pack(frame: WireFrame) -> bytes:
    """The bytes of a frame."""
    time = float("nan") if frame.time is None else frame.time
    head = _HEADER.pack(MAGIC, VERSION, frame.encoding, *frame.size, frame.frame_id, time)
    return head + bytes(frame.content)


def unpack(message: bytes) -> WireFrame:
    """A frame from its bytes; raises VideoError that says what is wrong with them."""
    if len(message) < HEADER_BYTES:
        raise VideoError(
            f"a frame of {len(message)} bytes is shorter than its header of {HEADER_BYTES}"
        )
    magic, version, encoding, height, width, frame_id, time = _HEADER.unpack_from(message)
    if magic != MAGIC or version != VERSION:
        raise VideoError(
            f"a frame begins with {magic!r} version {version}, wanted {MAGIC!r} version {VERSION}"
        )
    if encoding not in (Encoding.RAW, Encoding.JPEG, Encoding.PNG):
        raise VideoError(
            f"frame {frame_id} has encoding {encoding}, wanted 0 (raw), 1 (JPEG) or 2 (PNG)"
        )
    content = memoryview(message)[HEADER_BYTES:]
    if encoding == Encoding.RAW and (0 in (height, width) or len(content) != height * width * 3):
        raise VideoError(
            f"raw frame {frame_id} says {height}x{width} pixels but carries {len(content)} bytes, "
            f"wanted {height * width * 3}"
        )
    return WireFrame(
        frame_id, None if time != time else time, Encoding(encoding), content, (height, width)
    )
