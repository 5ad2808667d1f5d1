"""Every kind of source against real files made here; the wrong inputs and their errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spatial_ttt.errors import VideoError
from spatial_ttt.video import ReadOptions, open_source
from tests.video.clips import HEIGHT, WIDTH, encode, noise, picture

UNEVEN = [0.0, 0.04, 0.2, 0.24, 0.7, 0.75, 1.5]
STEADY = [index / 10 for index in range(37)]  # an odd number of frames
SKIP = ReadOptions(on_corrupt="skip")
KITCHEN = Path(__file__).parents[2] / "../shared/real/kitchen_walk.mp4"
CODECS = {
    "a.mp4": {"codec": "libx264"},
    "a.mov": {"codec": "libx264"},
    "a.mkv": {"codec": "libx264"},
    "a.webm": {"codec": "libvpx"},
    "b.webm": {"codec": "libvpx-vp9"},
    "a.gif": {"codec": "gif", "pix_fmt": "rgb8"},
}


def square_column(pixels):
    """Where the bright square of `picture` stands: it tells one index from the next."""
    return np.flatnonzero(pixels[8:24, :, 0].mean(axis=0) > 180).mean()


def times_of(spec, **request):
    with open_source(spec, **request) as source:
        return [frame.time for frame in source]


@pytest.mark.parametrize("name", CODECS)
def test_files_keep_their_true_uneven_times_and_pictures(tmp_path, name):
    path = encode(tmp_path / name, UNEVEN, **CODECS[name])
    with open_source(path) as source:
        frames = list(source)
    assert [frame.time for frame in frames] == pytest.approx(UNEVEN, abs=1e-3)
    for index, frame in enumerate(frames):
        assert frame.pixels.shape == (HEIGHT, WIDTH, 3)
        assert frame.pixels.dtype == np.uint8
        assert square_column(frame.pixels) == pytest.approx(square_column(picture(index)), abs=1)


def test_b_frames_come_in_order_of_presentation(tmp_path):
    path = encode(tmp_path / "b.mp4", STEADY, options={"bf": "3", "b_strategy": "0"})
    assert times_of(path) == pytest.approx(STEADY, abs=1e-3)


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif"])
def test_uniform_count_takes_rounded_linspace_indices(tmp_path, name):
    path = encode(tmp_path / name, STEADY, **CODECS[name])
    expected = [STEADY[round(index)] for index in np.linspace(0, 36, 5)]
    assert times_of(path, num_frames=5) == pytest.approx(expected, abs=1e-3)
    assert len(times_of(path, num_frames=500)) == 37
    assert times_of(path, num_frames=1) == [0.0]


def test_fps_takes_the_nearest_true_times(tmp_path):
    path = encode(tmp_path / "v.mp4", UNEVEN)
    # targets 0, 0.5, 1.0, 1.5: nearest frames 0, 0.7, 0.75, 1.5
    assert times_of(path, fps=2) == pytest.approx([0.0, 0.7, 0.75, 1.5], abs=1e-3)
    assert times_of(path, fps=1000) == pytest.approx(UNEVEN, abs=1e-3)


def test_the_bytes_of_a_file_read_like_the_file(tmp_path):
    path = encode(tmp_path / "v.mp4", UNEVEN)
    content = path.read_bytes()
    assert times_of(content) == times_of(path)
    assert times_of(content, num_frames=3) == times_of(path, num_frames=3)
    with pytest.raises(VideoError, match="cannot open video of 9 bytes"):
        times_of(b"not video")


def test_resize_on_reading(tmp_path):
    path = encode(tmp_path / "v.mp4", UNEVEN)
    with open_source(path, size=(24, 30)) as source:
        assert {frame.pixels.shape for frame in source} == {(24, 30, 3)}


def test_a_phone_video_is_turned_upright(tmp_path):
    path = encode(tmp_path / "v.mov", STEADY[:3])
    upright = next(open_source(path)).pixels
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # version, times, ids, layer, volume
    one, zero = (0x10000).to_bytes(4, "big"), bytes(4)
    minus = (-0x10000).to_bytes(4, "big", signed=True)
    assert data[matrix : matrix + 4] == one
    # 90 degrees clockwise as phones write it: x' = -y, y' = x
    data[matrix : matrix + 20] = zero + one + zero + minus + zero
    path.write_bytes(data)
    turned = next(open_source(path)).pixels
    assert turned.shape == (WIDTH, HEIGHT, 3)
    assert np.array_equal(turned, np.rot90(upright, -1))
    assert next(open_source(path, size=(40, 20))).pixels.shape == (40, 20, 3)


def test_corrupt_bytes_raise_and_say_how_far(tmp_path):
    path = encode(tmp_path / "v.mp4", STEADY, make=noise)
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + len(data) // 2
    data[middle : middle + 900] = bytes(900)
    path.write_bytes(data)
    with pytest.raises(VideoError, match=r"damaged.* frames were read, until \d+\.\d+ s"):
        times_of(path)
    with open_source(path, options=SKIP) as source:
        times = [frame.time for frame in source]
    assert source.stats.corrupt >= 1
    assert len(STEADY) - 4 <= len(times) < len(STEADY)
    assert set(np.round(times, 3)) <= set(np.round(STEADY, 3))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
def test_a_file_cut_off_raises_and_says_how_far(tmp_path, name):
    fast = {"movflags": "faststart"} if name.endswith("mp4") else None
    path = encode(tmp_path / name, STEADY, make=noise, container_options=fast, **CODECS[name])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(VideoError, match=r"damaged.* frames were read, until") as caught:
        times_of(path)
    assert " 0 frames" not in str(caught.value)
    with open_source(path, options=SKIP) as source:
        times = [frame.time for frame in source]
    assert 5 < len(times) < 30
    assert times == pytest.approx(STEADY[: len(times)], abs=1e-3)
    assert source.stats.corrupt >= 1
    with pytest.raises(VideoError, match="damaged"):
        times_of(path, num_frames=4)


def test_a_file_without_its_index_cannot_be_opened(tmp_path):
    path = encode(tmp_path / "v.mp4", STEADY)  # the index of a plain mp4 stands at its end
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(VideoError, match=r"cannot open .*truncated.*0 frames were read"):
        times_of(path)


def test_no_video_no_file_no_frames(tmp_path):
    with pytest.raises(VideoError, match="does not exist"):
        open_source(tmp_path / "absent.mp4")
    (tmp_path / "text.mp4").write_text("not a video " * 100)
    with pytest.raises(VideoError, match="cannot open"):
        times_of(tmp_path / "text.mp4")
    with pytest.raises(VideoError, match="no frames"):
        times_of(np.zeros((0, 8, 8, 3), np.uint8), fps=1)
    (tmp_path / "folder").mkdir()
    with pytest.raises(VideoError, match="holds no images"):
        open_source(tmp_path / "folder", fps=1)


def test_image_folders_sort_naturally(tmp_path):
    for index in (10, 9, 1, 2):
        Image.fromarray(np.full((6, 8, 3), index, np.uint8)).save(tmp_path / f"frame{index}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    with open_source(tmp_path, options=ReadOptions(input_fps=4)) as source:
        frames = list(source)
    assert [int(frame.pixels[0, 0, 0]) for frame in frames] == [1, 2, 9, 10]
    assert [frame.time for frame in frames] == [0, 0.25, 0.5, 0.75]
    with pytest.raises(VideoError, match="input_fps"):
        open_source(tmp_path)
    assert times_of(tmp_path, fps=2, options=ReadOptions(input_fps=4)) == [0, 0.5]
    assert times_of(tmp_path / "frame9.png") == [0.0]
    paths = [tmp_path / "frame2.png", tmp_path / "frame1.png"]
    assert times_of(paths, fps=1) == [0.0, 1.0]


def test_a_changing_frame_size_is_refused_unless_resized(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "1.png")
    Image.new("RGB", (9, 6)).save(tmp_path / "2.png")
    with pytest.raises(VideoError, match="frame size changes from 6x8 to 6x9"):
        times_of(tmp_path, fps=1)
    assert times_of(tmp_path, fps=1, size=(6, 8)) == [0.0, 1.0]


def test_a_broken_image_is_named(tmp_path):
    (tmp_path / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(VideoError, match=r"1\.png cannot be read as an image"):
        times_of(tmp_path, fps=1)


def test_arrays_and_tensors_of_both_layouts():
    torch = pytest.importorskip("torch")
    clip = np.stack([picture(index) for index in range(5)])
    as_float = clip.astype(np.float32) / 255
    for spec in (
        clip,
        clip.transpose(0, 3, 1, 2),
        as_float,
        as_float.astype(np.float64).transpose(0, 3, 1, 2),
        torch.from_numpy(clip),
        torch.from_numpy(as_float).permute(0, 3, 1, 2),
    ):
        with open_source(spec, fps=5) as source:
            frames = list(source)
        assert np.array_equal(np.stack([frame.pixels for frame in frames]), clip)
        assert [frame.time for frame in frames] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert times_of(torch.from_numpy(as_float).bfloat16(), num_frames=2, options=at(1, 2, 3, 4, 9))


def at(*times):
    return ReadOptions(times=tuple(float(time) for time in times))


def test_wrong_arrays_each_with_its_error():
    clip = np.zeros((3, 4, 6, 3), np.float32)
    clip[1, 2, 2, 0] = np.nan
    with pytest.raises(VideoError, match="frame 1 holds NaN"):
        open_source(clip, fps=1)
    with pytest.raises(VideoError, match=r"in 0\.\.1, got 0\.\.7; divide"):
        open_source(np.full((3, 4, 6, 3), (0, 1, 7), np.float32), fps=1)
    with pytest.raises(VideoError, match="shape"):
        open_source(np.zeros((4, 6, 3), np.uint8), fps=1)
    with pytest.raises(VideoError, match="dtype int64"):
        open_source(np.zeros((1, 4, 6, 3), np.int64), fps=1)
    good = np.zeros((3, 4, 6, 3), np.uint8)
    with pytest.raises(VideoError, match=r"time goes backwards, from 2\.000 s to 1\.000 s"):
        times_of(good, options=at(0, 2, 1))
    with pytest.raises(VideoError, match="2 times for 3 frames"):
        open_source(good, options=at(0, 2))
    with pytest.raises(VideoError, match="give one"):
        open_source(good, fps=1, num_frames=2)
    with pytest.raises(VideoError, match="fps must be above 0"):
        open_source(good, fps=0)
    with pytest.raises(VideoError, match="height, width"):
        open_source(good, fps=1, size=(0, 4))


def test_the_last_frame_stays_readable_after_closing(tmp_path):
    path = encode(tmp_path / "v.mp4", STEADY)
    source = open_source(path)
    frame = next(source)
    source.close()
    assert next(source, None) is None
    assert frame.pixels.mean() > 20


@pytest.mark.skipif(not KITCHEN.exists(), reason="the real video is not here")
def test_the_real_kitchen_walk():
    with open_source(KITCHEN) as source:
        times = [frame.time for frame in source]
    assert times == pytest.approx([index / 10 for index in range(373)], abs=1e-6)
    sampled = times_of(KITCHEN, fps=1, size=(96, 128))
    assert sampled == pytest.approx([float(second) for second in range(38)], abs=1e-6)
    assert times_of(KITCHEN, num_frames=3) == pytest.approx([0.0, 18.6, 37.2])
