"""Rates and windows over a run."""

from __future__ import annotations

import pytest

from spatial_ttt.train.schedule import annealed_window, cosine_scale


def test_the_rate_warms_up_and_falls_to_its_floor() -> None:
    assert [cosine_scale(n, 4, 0.0) for n in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert cosine_scale(0, 0, 0.0) == 1.0
    assert cosine_scale(9, 4, 0.5, floor=0.2) == pytest.approx(0.6)
    assert cosine_scale(9, 4, 1.0, floor=0.2) == pytest.approx(0.2)
    assert cosine_scale(9, 4, 1.7, floor=0.2) == pytest.approx(0.2)
    falling = [cosine_scale(9, 4, n / 20) for n in range(21)]
    assert falling == sorted(falling, reverse=True)


def test_the_window_goes_from_first_to_last() -> None:
    assert [annealed_window(p, 1000, 200) for p in (-1.0, 0.0, 0.5, 1.0, 2.0)] == [
        1000,
        1000,
        600,
        200,
        200,
    ]
