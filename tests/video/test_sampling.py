"""Sampling against a brute-force nearest search, on any times, and on endless streams."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_ttt.errors import VideoError
from spatial_ttt.video import sample_fps, uniform_indices
from spatial_ttt.video.sampling import pick

milliseconds = st.lists(st.integers(0, 8000), min_size=1, max_size=60, unique=True).map(sorted)


def sampled(times: list[float], fps: float) -> list[float]:
    return list(sample_fps(times, fps, time=lambda value: value))


def nearest(times: list[float], fps: float) -> list[float]:
    """For every target in the video's span the nearest time, earlier on a tie, each once."""
    chosen: list[float] = []
    for k in itertools.count():
        target = times[0] + k / fps
        if target > times[-1] + 1e-6:
            return chosen
        best = min(times, key=lambda value: (round(abs(value - target), 6), value))
        if best not in chosen:
            chosen.append(best)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(milliseconds, st.sampled_from([0.3, 0.5, 1, 2, 3, 10, 29.97, 1000]))
def test_fps_sampling_equals_brute_force(stamps, fps):
    times = [stamp / 1000 for stamp in stamps]
    assert sampled(times, fps) == nearest(times, fps)


def test_steady_video_gives_every_nth_frame():
    times = [index / 30 for index in range(301)]
    assert sampled(times, 2) == pytest.approx([k / 2 for k in range(21)])
    assert sampled(times, 30) == times


def test_an_endless_stream_is_looked_ahead_by_one_frame_only():
    read = []

    def camera():
        for index in itertools.count():
            read.append(index)
            yield index / 10

    stream = sample_fps(camera(), 2, time=lambda value: value)
    assert [next(stream) for _ in range(4)] == pytest.approx([0.0, 0.5, 1.0, 1.5])
    assert max(read) <= 16


def test_uniform_indices_are_rounded_linspace():
    assert uniform_indices(10, 4) == [0, 3, 6, 9]
    assert uniform_indices(7, 3) == [0, 3, 6]
    assert uniform_indices(5, 5) == uniform_indices(5, 99) == [0, 1, 2, 3, 4]
    assert uniform_indices(100, 1) == [0]


def test_pick_reads_no_further_than_needed():
    items = iter(range(100))
    assert list(pick(items, [0, 4, 9])) == [0, 4, 9]
    assert next(items) == 10
    assert list(pick(items, [])) == []


def test_wrong_requests():
    with pytest.raises(VideoError, match="above 0"):
        sampled([0.0], 0)
    with pytest.raises(VideoError, match="at least 1"):
        uniform_indices(5, 0)
    with pytest.raises(VideoError, match="no frames"):
        uniform_indices(0, 3)
