"""Are the clips really there? Checked for all items before the first question is asked.

A half-downloaded file would otherwise fail hours into a run, or worse: be watched as a shorter one.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from spatial_ttt.data_format import read_media
from spatial_ttt.errors import DataError
from spatial_ttt.eval.benchmarks.item import BenchmarkItem

_BOXED_SUFFIXES = frozenset({".mp4", ".mov", ".m4v"})
_PARTIAL_SUFFIXES = (".incomplete", ".part", ".aria2", ".crdownload", ".tmp")


def check_clips(items: Iterable[BenchmarkItem], what: str) -> None:
    """Raise `DataError` that counts and names the missing and the half-downloaded files."""
    paths = sorted({path for item in items for path in item.clip.paths})
    missing = [path for path in paths if not _is_there(path)]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(paths)} files are missing (first: {missing[0]}"
            f"{_partial_hint(missing[0])}); download {what}, or choose items with --only"
        )
    broken = [(path, fault) for path in paths if (fault := fault_of(path)) is not None]
    if broken:
        path, fault = broken[0]
        raise DataError(
            f"{len(broken)} of {len(paths)} files are damaged or half-downloaded "
            f"(first: {path}: {fault}); download them again"
        )


def media_of(path: Path) -> Path | bytes:
    """What a clip's path stands for: the file itself, or bytes out of a tar shard."""
    return path if path.exists() else read_media(path.parent, path.name)


def fault_of(path: Path) -> str | None:
    """What is wrong with a video or image file, as far as its bytes tell; None if nothing."""
    media = media_of(path)
    with io.BytesIO(media) if isinstance(media, bytes) else media.open("rb") as file:
        return _fault(file, path.suffix.lower())


def _fault(file: BinaryIO, suffix: str) -> str | None:
    size = file.seek(0, io.SEEK_END)
    if size == 0:
        return "empty file"
    if suffix in _BOXED_SUFFIXES:
        return _mp4_fault(file, size)
    file.seek(max(0, size - 4096))
    tail = file.read()
    if suffix == ".png" and b"IEND\xaeB`\x82" not in tail:
        return "PNG without its end"
    if suffix in (".jpg", ".jpeg") and b"\xff\xd9" not in tail:
        return "JPEG without its end"
    return None


def _mp4_fault(file: BinaryIO, size: int) -> str | None:
    """An MP4 is a row of boxes, each with its length: cut short, the last one outruns the file."""
    position, kinds = 0, []
    while position < size:
        file.seek(position)
        header = file.read(16)
        if len(header) < 8:
            return "ends inside a box header"
        length, kind = struct.unpack(">I4s", header[:8])
        if length == 1 and len(header) == 16:
            length = struct.unpack(">Q", header[8:])[0]
        elif length == 0:  # the last box may run to the end of the file
            length = size - position
        if length < 8:
            return f"no MP4 box at byte {position}"
        kinds.append(kind)
        position += length
    if position > size:
        return f"{position - size} bytes short"
    return None if b"moov" in kinds else "no index (moov box): was the download finished?"


def _is_there(path: Path) -> bool:
    if path.is_file():
        return True
    if not any(parent.suffix == ".tar" for parent in path.parents):
        return False
    read_media(path.parent, path.name)  # raises and says why when the shard lacks it
    return True


def _partial_hint(path: Path) -> str:
    for suffix in _PARTIAL_SUFFIXES:
        partial = path.with_name(path.name + suffix)
        if partial.exists():
            return f"; {partial.name} lies there, an unfinished download"
    return ""
