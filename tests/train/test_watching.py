"""Which frames are trained on: chosen by true times, as many as asked for, whole or not at all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spatial_ttt.errors import VideoError
from spatial_ttt.testing.small import small_processor
from spatial_ttt.train.run_config import FramesConfig
from spatial_ttt.train.watching import choose, frame_times, most_slots, watch_image, watch_video
from spatial_ttt.video import open_source
from tests.train import toy
from tests.video.clips import encode

PROCESSOR = small_processor((16, 32))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return toy.write_clip(tmp_path_factory.mktemp("clips") / "a.mp4", 3, 12)  # 0, 0.5, ... 5.5 s


def test_times_are_those_of_the_decoder(clip, tmp_path):
    uneven = encode(tmp_path / "uneven.mp4", [0.0, 0.1, 0.5, 0.6, 2.0])
    for path in (clip, uneven):
        expected = [frame.time for frame in open_source(path)]
        assert frame_times(str(path)) == pytest.approx(expected, abs=1e-6)


def test_frames_are_the_chosen_ones(clip):
    watched = watch_video(clip, FramesConfig(most=4), PROCESSOR, None)
    every = list(open_source(clip))
    expected = [every[i] for i in (0, 4, 7, 11)]
    assert watched.times == ((0.0 + 2.0) / 2, (3.5 + 5.5) / 2)
    assert watched.frames.shape == (4, 16, 32, 3)
    whole = torch.from_numpy(np.stack([frame.pixels for frame in expected]))
    assert torch.equal(watched.frames, PROCESSOR.fit(whole))


def test_nothing_after_until_is_seen(clip):
    watched = watch_video(clip, FramesConfig(most=64), PROCESSOR, 2.2)
    assert watched.frames.shape[0] == 4 and max(watched.times) <= 2.2  # 0, 0.5, 1, 1.5 (2.0 is odd)


def test_bytes_are_watched_like_files(clip):
    a = watch_video(clip, FramesConfig(), PROCESSOR, None)
    b = watch_video(clip.read_bytes(), FramesConfig(), PROCESSOR, None)
    assert a.times == b.times and bool((a.frames == b.frames).all())


def test_one_frame_fills_a_slot(tmp_path):
    path = toy.write_clip(tmp_path / "one.mp4", 0, 1)
    watched = watch_video(path, FramesConfig(), PROCESSOR, None)
    assert watched.frames.shape[0] == 2 and bool((watched.frames[0] == watched.frames[1]).all())


def test_images_from_files_and_from_bytes(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(toy.pictures(1, 1)[0]).save(path)
    watched = watch_image(path, PROCESSOR)
    assert watched.times == (0.0,) and watched.frames.shape == (2, 16, 32, 3)
    assert bool((watch_image(path.read_bytes(), PROCESSOR).frames == watched.frames).all())
    with pytest.raises(VideoError, match="cannot be read as an image"):
        watch_image(b"no image", PROCESSOR)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_cut_file_raises(clip, tmp_path, share):
    whole = clip.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(VideoError, match=r"cut\.mp4"):
        watch_video(path, FramesConfig(most=64), PROCESSOR, None)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    gaps=st.lists(st.floats(0.01, 2.0), min_size=0, max_size=80),
    fps=st.none() | st.floats(0.2, 8.0),
    least=st.integers(1, 8),
    more=st.integers(0, 40),
    until=st.none() | st.floats(0.0, 60.0),
)
def test_choices_are_even_rising_and_within_bounds(gaps, fps, least, more, until):
    times = np.concatenate(([0.0], np.cumsum(gaps))).tolist()
    config = FramesConfig(fps=fps, least=least, most=least + more)
    chosen = choose(times, config, until)
    assert len(chosen) % 2 == 0 and chosen == sorted(chosen)
    assert len(set(chosen)) == len(chosen) or (len(chosen) == 2 and len(set(chosen)) == 1)
    if until is not None:
        assert all(times[i] <= until + 1e-5 for i in chosen)
    assert len(chosen) <= max(2, config.most)
    assert len(chosen) // 2 <= most_slots(config, until)
    seen = sum(until is None or t <= until + 1e-6 for t in times)
    if fps is None:
        assert len(chosen) >= min(seen, config.most) - 1
