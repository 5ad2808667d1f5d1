"""Frames in and out: files, folders, cameras, streams, arrays; sampling; encoding.

open_source(spec, fps=...) -> FrameSource of Frame(pixels, time)          write_mp4(path, frames)

What needs PyAV is imported when it is first asked for: a session and a benchmark do without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from spatial_ttt.video.frame import Frame, check_frame, check_pixels
from spatial_ttt.video.options import ReadOptions, SourceStats
from spatial_ttt.video.sampling import sample_fps, uniform_indices

if TYPE_CHECKING:
    from spatial_ttt.video.sources import FrameSource, open_source
    from spatial_ttt.video.writing import EncodeOptions, Mp4Writer, write_mp4

__all__ = [
    "EncodeOptions",
    "Frame",
    "FrameSource",
    "Mp4Writer",
    "ReadOptions",
    "SourceStats",
    "check_frame",
    "check_pixels",
    "open_source",
    "sample_fps",
    "uniform_indices",
    "write_mp4",
]

_LATE = {
    "FrameSource": "sources",
    "open_source": "sources",
    "EncodeOptions": "writing",
    "Mp4Writer": "writing",
    "write_mp4": "writing",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
