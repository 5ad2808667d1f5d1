"""Opening and counting."""

import pytest

from spatial_ttt.errors import VideoError
from spatial_ttt.video.decode import count_frames, decode_file, public_name
from spatial_ttt.video.options import ReadOptions, SourceStats
from tests.video.clips import encode

TIMES = [index / 20 for index in range(33)]


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.webm", "libvpx"), ("b.webm", "libvpx-vp9")]
)
def test_the_count_is_what_decoding_gives(tmp_path, name, codec):
    path = str(encode(tmp_path / name, TIMES, codec=codec))
    stats = SourceStats()
    decoded = list(decode_file(path, ReadOptions(), stats))
    assert count_frames(path, ReadOptions()) == len(decoded) == stats.frames_decoded == 33
    assert stats.last_time == pytest.approx(1.6, abs=1e-3)


def test_audio_only_is_no_video(tmp_path):
    import av
    import numpy as np

    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match="no video stream"):
        list(decode_file(str(path), ReadOptions(), SourceStats()))


def test_names_in_messages_hide_passwords():
    assert public_name("rtsp://me:pass@host:8554/a") == "rtsp://host:8554/a"
    assert public_name("walk@home.mp4") == "walk@home.mp4"
    assert public_name(b"abc") == "video of 3 bytes"
