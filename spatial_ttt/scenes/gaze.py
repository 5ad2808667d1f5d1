"""Where a walker looks: longer at furniture and open space, shortly at bare walls near by."""

from __future__ import annotations

import math

import numpy as np

from spatial_ttt.scenes.dice import Dice
from spatial_ttt.scenes.homes import Home
from spatial_ttt.scenes.scene import Array

NUM_BEARINGS = 36
_SPREAD = math.radians(28.0)
_UNSEEN = ("ceiling light", "rug")  # not what one turns one's head for


class Sights:
    """What there is to see in one room."""

    def __init__(self, home: Home, room_id: int) -> None:
        things = [
            p for p in home.placed if p.room_id == room_id and p.furniture.category not in _UNSEEN
        ]
        self.spots: Array = np.array([(p.x, p.y) for p in things], dtype=np.float64).reshape(-1, 2)
        self.sizes: Array = np.array([max(p.furniture.size) for p in things], dtype=np.float64)
        self.corners: Array = np.array(home.plan.rooms[room_id].polygon, dtype=np.float64)

    def interest(self, x: float, y: float) -> Array:
        """How much there is to see from a floor point in each bearing [NUM_BEARINGS], 0..1."""
        bearings: Array = np.arange(NUM_BEARINGS, dtype=np.float64) * (2.0 * math.pi / NUM_BEARINGS)
        away = self.spots - (x, y)
        distance = np.maximum(np.sqrt((away**2).sum(1)), 0.4)
        apparent = np.minimum(self.sizes / distance, 1.0)
        turn = np.angle(np.exp(1j * (np.arctan2(away[:, 1], away[:, 0])[:, None] - bearings)))
        things = (apparent[:, None] * np.exp(-((turn / _SPREAD) ** 2))).sum(0)
        depth = self.depth(x, y, bearings)
        score = things / max(float(things.max(initial=0.0)), 0.3) * depth / (depth + 1.2)
        return np.asarray(score / max(float(score.max()), 1e-6))

    def depth(self, x: float, y: float, bearings: Array) -> Array:
        """Distance to the room's walls along bearings, m."""
        start, end = self.corners, np.roll(self.corners, -1, axis=0)
        dx, dy = np.cos(bearings)[:, None], np.sin(bearings)[:, None]
        ex, ey = (end - start).T
        sx, sy = start[:, 0] - x, start[:, 1] - y
        cross = dx * ey - dy * ex
        cross = np.where(np.abs(cross) < 1e-9, 1e-9, cross)
        along = (sx * ey - sy * ex) / cross
        share = (sx * dy - sy * dx) / cross
        hit = (along > 0.0) & (share >= 0.0) & (share <= 1.0)
        return np.asarray(np.minimum(np.where(hit, along, np.inf).min(1), 8.0))

    def focus(self, dice: Dice, x: float, y: float) -> tuple[float, float] | None:
        """A thing worth looking at on the way to a floor point, not too near to it."""
        away = self.spots - (x, y)
        far = np.sqrt((away**2).sum(1)) > 0.8
        if not far.any():
            return None
        index = dice.weighted(tuple(enumerate(np.where(far, self.sizes, 0.0).tolist())))
        return float(self.spots[index, 0]), float(self.spots[index, 1])
