"""Which box rests on, or hangs above, which other box."""

from __future__ import annotations

import numpy as np

from spatial_ttt.scenes.boxes import Bools, Boxes, bounds
from spatial_ttt.scenes.scene import Array

TOUCH = 0.06
"""Largest gap, metres, between an underside and the top it rests on."""


def is_over(a: Boxes, b: Boxes) -> Bools:
    """Whether the centres of paired boxes `a` lie over the footprints of `b`, [N]."""
    offset = ((a.center - b.center)[:, None] * b.axes).sum(2)
    upright = np.abs(b.axes[:, :, 2]) >= 0.5  # heights do not count
    return np.asarray(((np.abs(offset) <= b.size / 2) | upright).all(1))


def clearance(a: Boxes, b: Boxes) -> Array:
    """Metres from the tops of paired boxes `b` up to the undersides of `a`, [N]."""
    result: Array = bounds(a)[0][:, 2] - bounds(b)[1][:, 2]
    return result


def rests_on(a: Boxes, b: Boxes) -> Bools:
    """Whether boxes `a` stand on boxes `b`, [N]: over them, and touching their tops."""
    return np.asarray(is_over(a, b) & (np.abs(clearance(a, b)) <= TOUCH))


def hangs_above(a: Boxes, b: Boxes) -> Bools:
    """Whether boxes `a` hang over boxes `b` without touching them, [N]."""
    return np.asarray(is_over(a, b) & (clearance(a, b) > 2 * TOUCH))
