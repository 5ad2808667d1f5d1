"""Geometry of oriented boxes: corners, exact closest distance, containment, overlap, footprints.

A box set is `Boxes`: arrays over N boxes. Distances between box pairs are exact: upright boxes
(all of ours, nearly all of the scans') are footprint x height, so a planar distance and a height
gap decide; tilted ones fall back to vertex-to-box and edge-to-edge distances, which together hold
the closest pair of any two disjoint boxes, and separating axes, which tell disjoint from touching.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatial_ttt.scenes.scene import Array, OrientedBox, SceneObject

Bools = NDArray[np.bool_]

UPRIGHT_TOLERANCE = 1e-6
"""Largest sine of the tilt below which a box counts as upright."""

_SIGNS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)
_SQUARE = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=np.float64)
_EDGES = np.array(
    [(i, j) for i in range(8) for j in range(i + 1, 8) if np.sum(_SIGNS[i] != _SIGNS[j]) == 1]
)  # [12, 2] corner indices
_PAIR_BATCH = 2048  # tilted pairs at a time: 144 edge pairs each stay within the cache


@dataclass(frozen=True, slots=True)
class Boxes:
    """N oriented boxes as arrays. `axes[n]` rows are box n's own unit axes in the world."""

    center: Array  # [N, 3] m
    size: Array  # [N, 3] m
    axes: Array  # [N, 3, 3]

    def __len__(self) -> int:
        return len(self.center)

    def take(self, index: NDArray[np.intp] | Sequence[int]) -> Boxes:
        """The boxes at `index`."""
        index = np.asarray(index, dtype=np.intp)
        return Boxes(self.center[index], self.size[index], self.axes[index])

    def shrunk(self, inset: float) -> Boxes:
        """Every face moved inwards by `inset` metres; no side falls below zero."""
        return Boxes(self.center, np.maximum(self.size - 2 * inset, 0.0), self.axes)


def stack(boxes: Sequence[OrientedBox | SceneObject]) -> Boxes:
    """Gather boxes, or the boxes of objects, into arrays."""
    plain = [box.box if isinstance(box, SceneObject) else box for box in boxes]
    if not plain:
        return Boxes(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3, 3)))
    return Boxes(
        np.array([box.center for box in plain], dtype=np.float64),
        np.array([box.size for box in plain], dtype=np.float64),
        np.array([box.axes for box in plain], dtype=np.float64),
    )


def yaw_axes(yaw: float) -> Array:
    """Axes [3, 3] of an upright box turned by `yaw` radians about world up, counter-clockwise."""
    cos, sin = float(np.cos(yaw)), float(np.sin(yaw))
    return np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])


def corners(boxes: Boxes) -> Array:
    """The eight corners of each box, [N, 8, 3] m."""
    half = _SIGNS[None] * (boxes.size / 2)[:, None]
    return half @ boxes.axes + boxes.center[:, None]


def bounds(boxes: Boxes) -> tuple[Array, Array]:
    """Lowest and highest world coordinates of each box, two [N, 3] m."""
    half = (np.abs(boxes.axes) * (boxes.size / 2)[:, :, None]).sum(1)
    return boxes.center - half, boxes.center + half


# --- Upright boxes: a rectangle on the floor and a height interval -------------------------------


def vertical_axis(boxes: Boxes) -> NDArray[np.intp]:
    """Index of each box's own axis that points up or down, -1 for a tilted box, [N]."""
    up = np.abs(boxes.axes[:, :, 2])  # [N, 3]
    axis = up.argmax(1)
    tilt = np.sqrt(np.maximum((boxes.axes**2)[:, :, :2].sum(2), 0.0))  # horizontal part per axis
    return np.where(tilt[np.arange(len(boxes)), axis] <= UPRIGHT_TOLERANCE, axis, -1)


@dataclass(frozen=True, slots=True)
class _Prisms:
    """Upright boxes as rectangles (centre, half sizes, unit axes in the plane) and z intervals."""

    center: Array  # [N, 2]
    half: Array  # [N, 2]
    axes: Array  # [N, 2, 2]
    low: Array  # [N]
    high: Array  # [N]

    def take(self, index: NDArray[np.intp]) -> _Prisms:
        return _Prisms(
            self.center[index],
            self.half[index],
            self.axes[index],
            self.low[index],
            self.high[index],
        )


def _prisms(boxes: Boxes, vertical: NDArray[np.intp]) -> _Prisms:
    rows = np.arange(len(boxes))[:, None]
    flat = np.array([[1, 2], [2, 0], [0, 1]])[vertical]  # the two level axes of each box
    half_height = boxes.size[rows[:, 0], vertical] / 2
    return _Prisms(
        boxes.center[:, :2],
        boxes.size[rows, flat] / 2,
        boxes.axes[rows, flat][:, :, :2],
        boxes.center[:, 2] - half_height,
        boxes.center[:, 2] + half_height,
    )


def _rectangle_corners(prisms: _Prisms) -> Array:
    return (_SQUARE[None] * prisms.half[:, None]) @ prisms.axes + prisms.center[:, None]


def _planar_distance(a: _Prisms, b: _Prisms) -> Array:
    """Distance of paired rectangles, [N]; overlapping or touching ones are at 0."""
    corners_a, corners_b = _rectangle_corners(a), _rectangle_corners(b)
    offset_b = (corners_b - a.center[:, None]) @ a.axes.transpose(0, 2, 1)  # [N, 4, 2] in a's frame
    offset_a = (corners_a - b.center[:, None]) @ b.axes.transpose(0, 2, 1)
    beyond_b = np.maximum(np.abs(offset_b) - a.half[:, None], 0.0)
    beyond_a = np.maximum(np.abs(offset_a) - b.half[:, None], 0.0)
    nearest = np.minimum((beyond_b**2).sum(2).min(1), (beyond_a**2).sum(2).min(1))
    # Rectangles are apart exactly when one of their four side directions separates them.
    apart_a = (offset_b.min(1) > a.half) | (offset_b.max(1) < -a.half)
    apart_b = (offset_a.min(1) > b.half) | (offset_a.max(1) < -b.half)
    return np.where(apart_a.any(1) | apart_b.any(1), np.sqrt(nearest), 0.0)


def _prism_distance(a: _Prisms, b: _Prisms) -> Array:
    gap = np.maximum(np.maximum(a.low - b.high, b.low - a.high), 0.0)
    return np.hypot(_planar_distance(a, b), gap)


# --- Any boxes -----------------------------------------------------------------------------------


def _separation(a: Boxes, b: Boxes) -> Array:
    """Largest gap along the 15 candidate axes of box pairs, [N] m; negative when they overlap."""
    cross = np.cross(a.axes[:, :, None], b.axes[:, None]).reshape(len(a), 9, 3)
    length = np.linalg.norm(cross, axis=2, keepdims=True)
    cross = np.divide(cross, length, out=np.zeros_like(cross), where=length > 1e-9)
    axes = np.concatenate([a.axes, b.axes, cross], axis=1)  # [N, 15, 3]
    reach = np.zeros(axes.shape[:2])
    for box in (a, b):
        reach += (np.abs(axes @ box.axes.transpose(0, 2, 1)) * (box.size / 2)[:, None]).sum(2)
    gap = np.abs((axes * (b.center - a.center)[:, None]).sum(2)) - reach
    gap[:, 6:][length[:, :, 0] <= 1e-9] = -np.inf  # parallel edges give no axis
    result: Array = gap.max(1)
    return result


def _point_distance_squared(boxes: Boxes, points: Array) -> Array:
    """Squared distance of points [N, K, 3] to their box, [N, K]."""
    local = (points - boxes.center[:, None]) @ boxes.axes.transpose(0, 2, 1)
    beyond = np.maximum(np.abs(local) - (boxes.size / 2)[:, None], 0.0)
    result: Array = (beyond**2).sum(2)
    return result


def _edge_distance_squared(corners_a: Array, corners_b: Array) -> Array:
    """Least squared distance over the 12 x 12 edge pairs of box pairs, [N]."""
    start_a, start_b = corners_a[:, _EDGES[:, 0], None], corners_b[:, None, _EDGES[:, 0]]
    along_a = corners_a[:, _EDGES[:, 1], None] - start_a  # [N, 12, 1, 3]
    along_b = corners_b[:, None, _EDGES[:, 1]] - start_b  # [N, 1, 12, 3]
    apart = start_a - start_b
    aa, bb = (along_a**2).sum(-1), (along_b**2).sum(-1)
    ab = (along_a * along_b).sum(-1)
    da, db = (along_a * apart).sum(-1), (along_b * apart).sum(-1)
    tiny = np.finfo(np.float64).tiny
    denominator = aa * bb - ab**2
    s = np.where(
        denominator > 1e-12 * aa * bb, (ab * db - bb * da) / np.maximum(denominator, tiny), 0
    )
    s = np.clip(s, 0.0, 1.0)
    t = np.clip((ab * s + db) / np.maximum(bb, tiny), 0.0, 1.0)
    s = np.clip((ab * t - da) / np.maximum(aa, tiny), 0.0, 1.0)
    difference = apart + s[..., None] * along_a - t[..., None] * along_b
    result: Array = (difference**2).sum(-1).min((1, 2))
    return result


def _tilted_distance(a: Boxes, b: Boxes) -> Array:
    corners_a, corners_b = corners(a), corners(b)
    squared = np.minimum(
        _point_distance_squared(a, corners_b).min(1), _point_distance_squared(b, corners_a).min(1)
    )
    squared = np.minimum(squared, _edge_distance_squared(corners_a, corners_b))
    return np.where(_separation(a, b) > 0.0, np.sqrt(squared), 0.0)


def closest_distance(a: Boxes, b: Boxes) -> Array:
    """Exact distance between the closest points of paired boxes, [N] m; 0 where they overlap."""
    upright_a, upright_b = vertical_axis(a), vertical_axis(b)
    upright = (upright_a >= 0) & (upright_b >= 0)
    if upright.all():
        return _prism_distance(_prisms(a, upright_a), _prisms(b, upright_b))
    distance = np.empty(len(a))
    level = np.flatnonzero(upright)
    distance[level] = _prism_distance(
        _prisms(a.take(level), upright_a[level]), _prisms(b.take(level), upright_b[level])
    )
    tilted = np.flatnonzero(~upright)
    for start in range(0, len(tilted), _PAIR_BATCH):
        part = tilted[start : start + _PAIR_BATCH]
        distance[part] = _tilted_distance(a.take(part), b.take(part))
    return distance


def distance_matrix(boxes: Boxes) -> Array:
    """Exact closest distances between all boxes of a set, [N, N] m, zero on the diagonal."""
    first, second = np.triu_indices(len(boxes), 1)
    vertical = vertical_axis(boxes)
    if (vertical >= 0).all():  # prepare each prism once, not once per pair
        prisms = _prisms(boxes, vertical)
        pairs = _prism_distance(prisms.take(first), prisms.take(second))
    else:
        pairs = closest_distance(boxes.take(first), boxes.take(second))
    matrix = np.zeros((len(boxes), len(boxes)))
    matrix[first, second] = matrix[second, first] = pairs
    return matrix


def overlaps(a: Boxes, b: Boxes, tolerance: float = 0.0) -> Bools:
    """Whether paired boxes interpenetrate by more than `tolerance` metres along every axis, [N]."""
    return np.asarray(_separation(a, b) < -tolerance)


def contains_points(box: OrientedBox, points: Array, tolerance: float = 1e-9) -> Bools:
    """Which of the points [..., 3] lie inside the box or on its faces."""
    local = np.abs((points - box.center) @ box.axes.T)
    return np.asarray((local <= box.size / 2 + tolerance).all(-1))


def contains_box(outer: OrientedBox, inner: OrientedBox, tolerance: float = 1e-9) -> bool:
    """Whether every point of `inner` lies in `outer`."""
    return bool(contains_points(outer, corners(stack([inner]))[0], tolerance).all())


# --- The floor plan ------------------------------------------------------------------------------


def footprint(box: OrientedBox) -> Array:
    """The box's shadow on the floor: a counter-clockwise polygon [K, 2], K = 4 if upright."""
    points = np.unique(np.round(corners(stack([box]))[0, :, :2], 12), axis=0)
    return convex_hull(points)


def convex_hull(points: Array) -> Array:
    """Counter-clockwise hull [K, 2] of points [N, 2] (Andrew's monotone chain)."""
    ordered = points[np.lexsort((points[:, 1], points[:, 0]))]
    hulls: list[Array] = []
    for sequence in (ordered, ordered[::-1]):
        chain: list[Array] = []
        for point in sequence:
            while len(chain) > 1 and _turn(chain[-2], chain[-1], point) <= 1e-12:
                chain.pop()
            chain.append(point)
        hulls.extend(chain[:-1])
    return np.array(hulls)


def _turn(a: Array, b: Array, c: Array) -> float:
    """Twice the signed area of a triangle: positive when a, b, c turn left."""
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


def polygon_area(polygon: Array) -> float:
    """Signed area of a polygon [N, 2] in m2, positive when counter-clockwise."""
    x, y = polygon[:, 0], polygon[:, 1]
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def points_in_polygon(points: Array, polygon: Array) -> Bools:
    """Which points [..., 2] lie inside a polygon [N, 2], by counting crossings."""
    x, y = points[..., 0, None], points[..., 1, None]
    start, end = polygon, np.roll(polygon, -1, axis=0)
    rising = (start[:, 1] > y) != (end[:, 1] > y)
    slope = end[:, 1] - start[:, 1]
    at = start[:, 0] + (y - start[:, 1]) * (end[:, 0] - start[:, 0]) / np.where(
        slope == 0, 1, slope
    )
    return np.asarray(((rising & (x < at)).sum(-1) % 2) == 1)
