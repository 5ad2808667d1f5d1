"""Frames in and out: files, folders, cameras, streams, arrays; sampling; encoding.

open_source(spec, fps=...) -> FrameSource of Frame(pixels, time)          write_mp4(path, frames)
"""

from spatial_ttt.video.frame import Frame, check_frame, check_pixels
from spatial_ttt.video.options import ReadOptions, SourceStats
from spatial_ttt.video.sampling import sample_fps, uniform_indices
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
