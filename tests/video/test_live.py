"""Live sources: the clock, the queue's drop policy, and a real RTSP camera where one can run."""

from __future__ import annotations

import itertools
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_ttt.errors import VideoError
from spatial_ttt.video import ReadOptions, SourceStats, open_source
from spatial_ttt.video.decode import Picture
from spatial_ttt.video.live import FrameQueue, StreamClock, device_of, is_live

SYSTEM_PYTHON = "/usr/bin/python3"
SERVER = Path(__file__).with_name("rtsp_server.py")


def rtsp_server_is_installed() -> bool:
    if not Path(SYSTEM_PYTHON).exists():
        return False
    return (
        subprocess.run([SYSTEM_PYTHON, str(SERVER), "--check"], capture_output=True).returncode == 0
    )


needs_rtsp = pytest.mark.skipif(
    not rtsp_server_is_installed(), reason="Debian's GStreamer RTSP server is not installed"
)


class Camera:
    """The RTSP server as a process of its own that can be killed and started again."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"rtsp://127.0.0.1:{self.port}/live"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [SYSTEM_PYTHON, str(SERVER), str(self.port)], stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        if self.process is not None and self.process.stdout is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


@pytest.fixture
def camera():
    camera = Camera()
    camera.start()
    yield camera
    camera.kill()


@needs_rtsp
def test_rtsp_camera_gives_frames_in_time_and_survives_a_restart(camera):
    options = ReadOptions(max_reconnects=20, backoff_s=0.1, timeout_s=5, queue_frames=100)
    times = []
    with open_source(camera.url, options=options) as source:
        for frame in source:
            times.append(frame.time)
            assert frame.pixels.shape == (128, 160, 3)
            if len(times) == 15:
                camera.kill()
                camera.start()
            if source.stats.reconnects and len(times) >= 45:
                break
    assert times[0] == 0
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert min(gaps) > 0
    assert sorted(gaps)[len(gaps) // 2] == pytest.approx(0.05, abs=0.01)  # 20 frames per second


@needs_rtsp
def test_rtsp_camera_lost_for_good_is_an_error_that_says_how_far(camera):
    options = ReadOptions(max_reconnects=2, backoff_s=0.05, timeout_s=5)
    with open_source(camera.url, options=options) as source:
        next(source)
        camera.kill()
        with pytest.raises(VideoError, match=r"lost after 2 attempts .* frames were read, until"):
            list(source)


@needs_rtsp
def test_a_slow_reader_drops_the_oldest_and_counts(camera):
    options = ReadOptions(queue_frames=2, timeout_s=5)
    with open_source(camera.url, fps=10, options=options) as source:
        first = next(source)
        deadline = time.monotonic() + 20
        while source.stats.frames_dropped < 5 and time.monotonic() < deadline:
            time.sleep(0.05)
        later = next(source)
    assert source.stats.frames_dropped >= 5
    assert later.time - first.time > 0.5


def test_an_unreachable_camera_gives_up_and_hides_its_password():
    options = ReadOptions(max_reconnects=1, backoff_s=0.01, timeout_s=2)
    with (
        open_source("rtsp://user:secret@127.0.0.1:9/live", options=options) as source,
        pytest.raises(VideoError, match="lost after 1 attempts") as caught,
    ):
        next(source)
    assert "secret" not in str(caught.value)
    assert source.stats.reconnects == 1


def test_an_absent_webcam_is_an_error():
    options = ReadOptions(max_reconnects=0, timeout_s=2)
    with (
        open_source("camera:97", options=options) as source,
        pytest.raises(VideoError, match="/dev/video97"),
    ):
        next(source)
    with pytest.raises(VideoError, match="no end"):
        open_source("camera:0", num_frames=4)


def test_names_of_live_sources(monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    assert device_of("camera:2") == ("/dev/video2", "v4l2")
    assert device_of("/dev/video1") == ("/dev/video1", "v4l2")
    assert device_of("rtsp://host/a") == ("rtsp://host/a", None)
    with pytest.raises(VideoError, match="camera:0"):
        device_of("camera:front")
    assert not is_live("walk.mp4") and is_live("rtsp://host/a") and is_live("camera:0")


def test_queue_drops_the_oldest():
    stats = SourceStats()
    queue = FrameQueue(ReadOptions(queue_frames=3), stats)
    for index in range(10):
        assert queue.put(Picture(float(index), None))
    queue.close()
    assert [picture.time for picture in queue] == [7, 8, 9]
    assert stats.frames_dropped == 7


def test_queue_blocks_and_loses_nothing():
    stats = SourceStats()
    queue = FrameQueue(ReadOptions(queue_frames=2, drop="block"), stats)

    def fill() -> None:
        for index in range(50):
            queue.put(Picture(float(index), None))
        queue.close()

    thread = threading.Thread(target=fill)
    thread.start()
    assert [picture.time for picture in queue] == list(range(50))
    thread.join()
    assert stats.frames_dropped == 0


def test_closing_frees_a_blocked_camera_and_an_error_reaches_the_reader():
    queue = FrameQueue(ReadOptions(queue_frames=1, drop="block"), SourceStats())
    queue.put(Picture(0.0, None))
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(queue.put(Picture(1.0, None))))
    thread.start()
    queue.close(VideoError("camera unplugged"))
    thread.join(timeout=5)
    assert results == [False]
    with pytest.raises(VideoError, match="unplugged"):
        list(queue)


def test_clock_follows_the_sender_through_absent_times_and_restarts():
    clock = StreamClock()
    assert clock.time(None, 100.0) == 0.0  # the first RTSP frame may carry no time
    assert clock.time(7.00, 100.05) == pytest.approx(0.05)
    assert clock.time(7.10, 100.30) == pytest.approx(0.15)  # late arrival, exact time
    clock.reconnected()
    assert clock.time(0.00, 105.0) == pytest.approx(5.0)
    assert clock.time(0.10, 105.0) == pytest.approx(5.1)
    assert clock.time(900.0, 105.2) == pytest.approx(5.2)  # the clock leapt: anchored anew
    assert clock.time(900.1, 105.9) == pytest.approx(5.3)


stamps = st.one_of(st.none(), st.floats(-1e6, 1e6))


@settings(derandomize=True, deadline=None)
@given(st.lists(st.tuples(stamps, st.floats(0, 5)), min_size=1, max_size=40))
def test_clock_always_rises(events):
    clock, arrival, last = StreamClock(), 50.0, -1.0
    for sender, wait in events:
        arrival += wait
        now = clock.time(sender, arrival)
        assert now > last
        last = now
