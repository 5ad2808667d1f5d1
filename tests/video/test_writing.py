"""Written mp4 files: H.264 4:2:0, true times, the same bytes always, whole or absent."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from spatial_ttt.errors import VideoError
from spatial_ttt.video import EncodeOptions, Frame, Mp4Writer, open_source, write_mp4
from tests.video.clips import noise, picture

UNEVEN = [0.0, 1 / 30, 0.2, 0.24, 0.7, 0.75, 1.5]


def test_times_and_pictures_come_back(tmp_path):
    path = tmp_path / "v.mp4"
    frames = [Frame(picture(index), time) for index, time in enumerate(UNEVEN)]
    write_mp4(path, frames, options=EncodeOptions(crf=1))
    with open_source(path) as source:
        back = list(source)
    assert [frame.time for frame in back] == pytest.approx(UNEVEN, abs=1 / 90_000)
    for before, after in zip(frames, back, strict=True):
        assert np.abs(before.pixels.astype(int) - after.pixels).mean() < 4
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
    assert [entry.name for entry in tmp_path.iterdir()] == ["v.mp4"]


def test_arrays_at_a_rate_or_at_times(tmp_path):
    clip = [picture(index) for index in range(4)]
    write_mp4(tmp_path / "a.mp4", clip, fps=24)
    write_mp4(tmp_path / "b.mp4", clip, times=[0, 1, 3, 7])
    assert [frame.time for frame in open_source(tmp_path / "a.mp4")] == pytest.approx(
        [index / 24 for index in range(4)], abs=1e-5
    )
    assert [frame.time for frame in open_source(tmp_path / "b.mp4")] == [0, 1, 3, 7]


def test_bytes_are_the_same_on_any_number_of_processors(tmp_path):
    script = (
        "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from pathlib import Path\n"
        "from spatial_ttt.video import write_mp4\nfrom tests.video.clips import noise\n"
        "write_mp4(Path(sys.argv[1]), [noise(i, 144, 192) for i in range(12)], fps=10)\n"
    )
    one = tmp_path / "one.mp4"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", script, str(one)], check=True, cwd=root)
    every = tmp_path / "every.mp4"
    write_mp4(every, [noise(index, 144, 192) for index in range(12)], fps=10)
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (one, every)}
    assert len(digests) == 1


def test_scaling_and_memory_targets():
    target = io.BytesIO()
    with Mp4Writer(target, size=(24, 32)) as writer:
        for index in range(3):
            writer.add(picture(index), index / 10)
    target.seek(0)
    with av.open(target) as container:
        sizes = [(frame.height, frame.width) for frame in container.decode(video=0)]
    assert sizes == [(24, 32)] * 3


def test_a_failure_leaves_nothing_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "v.mp4"
    write_mp4(path, [picture(0)], fps=1)
    before = path.read_bytes()
    with pytest.raises(VideoError, match="times must rise"):
        write_mp4(path, [picture(0), picture(1)], times=[1.0, 1.0])
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["v.mp4"]


def test_wrong_inputs(tmp_path):
    path = tmp_path / "v.mp4"
    with pytest.raises(VideoError, match="no frames were written"):
        write_mp4(path, [], fps=1)
    with pytest.raises(VideoError, match="even sides, got 47x64"):
        write_mp4(path, [noise(0, 47, 64)], fps=1)
    with pytest.raises(VideoError, match="first was 48x64"):
        write_mp4(path, [noise(0), noise(0, 50, 64)], fps=1)
    with pytest.raises(VideoError, match="give fps or times"):
        write_mp4(path, [noise(0)])
    with pytest.raises(VideoError, match="give one"):
        write_mp4(path, [noise(0)], fps=1, times=[0])
    with pytest.raises(VideoError, match="frame 1 has none"):
        write_mp4(path, [noise(0), noise(1)], times=[0])
    with pytest.raises(VideoError, match="NaN"):
        write_mp4(path, [np.full((4, 4, 3), np.nan)], fps=1)
    assert list(tmp_path.iterdir()) == []
