import math

import numpy as np
import pytest

from spatial_ttt.scenes.dice import Dice
from spatial_ttt.scenes.gaze import NUM_BEARINGS, Sights
from spatial_ttt.scenes.homes import make_home


def test_depth_of_a_plain_room() -> None:
    home = make_home(2, functions=("bathroom",))
    bounds = home.plan.rooms[0].bounds
    assert home.plan.rooms[0].notch is None
    x, y = (bounds.x0 + bounds.x1) / 2, (bounds.y0 + bounds.y1) / 2
    depth = Sights(home, 0).depth(x, y, np.array([0.0, math.pi / 2, math.pi]))
    assert depth == pytest.approx([bounds.width / 2, bounds.depth / 2, bounds.width / 2], abs=1e-6)


def test_interest_is_highest_toward_furniture() -> None:
    home = make_home(4, functions=("bedroom",))
    bounds = home.plan.rooms[0].bounds
    sights = Sights(home, 0)
    x, y = (bounds.x0 + bounds.x1) / 2, (bounds.y0 + bounds.y1) / 2
    interest = sights.interest(x, y)
    assert interest.shape == (NUM_BEARINGS,)
    assert interest.min() >= 0.0 and interest.max() == pytest.approx(1.0)
    best = interest.argmax() * 2 * math.pi / NUM_BEARINGS
    toward = np.arctan2(sights.spots[:, 1] - y, sights.spots[:, 0] - x)
    off = np.abs(np.angle(np.exp(1j * (toward - best))))
    assert off.min() < math.radians(30)


def test_focus_is_a_thing_not_too_near() -> None:
    home = make_home(4, functions=("bedroom",))
    sights = Sights(home, 0)
    x, y = sights.spots[0]
    for seed in range(10):
        focus = sights.focus(Dice(seed), float(x), float(y))
        assert focus is not None
        assert math.dist(focus, (x, y)) > 0.8
