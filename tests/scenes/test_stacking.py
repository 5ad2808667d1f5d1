"""What rests on what, on boxes placed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from spatial_ttt.scenes.boxes import Boxes, stack, yaw_axes
from spatial_ttt.scenes.scene import OrientedBox
from spatial_ttt.scenes.stacking import hangs_above, is_over, rests_on

TABLE = OrientedBox(np.array([0, 0, 0.4]), np.array([2.0, 1.0, 0.8]), yaw_axes(0.5))


def pair(x: float, y: float, bottom: float) -> tuple[Boxes, Boxes]:
    """A small box in the table's own axes, and the table."""
    spot = np.array([x, y]) @ TABLE.axes[:2, :2]
    cup = OrientedBox(np.array([*spot, bottom + 0.05]), np.full(3, 0.1), np.eye(3))
    return stack([cup]), stack([TABLE])


@pytest.mark.parametrize(
    ("x", "y", "bottom", "over", "on", "above"),
    [
        (0.0, 0.0, 0.80, True, True, False),
        (0.9, 0.4, 0.84, True, True, False),
        (1.1, 0.0, 0.80, False, False, False),
        (0.0, 0.6, 0.80, False, False, False),
        (0.0, 0.0, 1.50, True, False, True),
        (0.0, 0.0, 0.00, True, False, False),
        (1.1, 0.0, 1.50, False, False, False),
    ],
)
def test_a_cup_and_a_table(
    x: float, y: float, bottom: float, over: bool, on: bool, above: bool
) -> None:
    cup, table = pair(x, y, bottom)
    assert is_over(cup, table)[0] == over
    assert rests_on(cup, table)[0] == on
    assert hangs_above(cup, table)[0] == above
