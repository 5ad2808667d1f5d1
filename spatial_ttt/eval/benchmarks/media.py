"""Are the clips really there? Checked for all items before the first question is asked.

A half-downloaded file would otherwise fail hours into a run, or worse: be watched as a shorter one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

from spatial_ttt.errors import DataError
from spatial_ttt.eval.benchmarks.item import BenchmarkItem

_BOXED_SUFFIXES = frozenset({".mp4", ".mov", ".m4v"})
_PARTIAL_SUFFIXES = (".incomplete", ".part", ".aria2", ".crdownload", ".tmp")


def check_clips(items: Iterable[BenchmarkItem], what: str) -> None:
    """Raise `DataError` that counts and names the missing and the half-downloaded files."""
    paths = sorted({path for item in items for path in item.clip.paths})
    missing = [path for path in paths if not path.is_file()]
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


def fault_of(path: Path) -> str | None:
    """What is wrong with a video or image file, as far as its bytes tell; None if nothing."""
    size = path.stat().st_size
    if size == 0:
        return "empty file"
    suffix = path.suffix.lower()
    if suffix in _BOXED_SUFFIXES:
        return _mp4_fault(path, size)
    if suffix == ".png" and not _tail(path, 12).endswith(b"IEND\xaeB`\x82"):
        return "PNG without its end"
    if suffix in (".jpg", ".jpeg") and b"\xff\xd9" not in _tail(path, 4096):
        return "JPEG without its end"
    return None


def _mp4_fault(path: Path, size: int) -> str | None:
    """An MP4 is a row of boxes, each with its length: cut short, the last one outruns the file."""
    position, kinds = 0, []
    with path.open("rb") as file:
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


def _tail(path: Path, num_bytes: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - num_bytes))
        return file.read()


def _partial_hint(path: Path) -> str:
    for suffix in _PARTIAL_SUFFIXES:
        partial = path.with_name(path.name + suffix)
        if partial.exists():
            return f"; {partial.name} lies there, an unfinished download"
    return ""
