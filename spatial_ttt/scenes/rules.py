"""The answer to every kind of question, written once: generators ask and `verify` checks with it.

A question is about an `Inventory`: some objects of a scene by category, and a way to measure how
far apart two of them are. Which questions are too ambiguous to ask stands here too, next to the
answer they would have.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatial_ttt.scenes.boxes import Boxes, closest_distance, distance_matrix, stack
from spatial_ttt.scenes.sampling import SAMPLING_INSET, sampled_distance
from spatial_ttt.scenes.scene import Array, SceneObject

Indices = NDArray[np.intp]
PairDistance = Callable[[Indices, Indices], Array]
"""Distances [N] m between objects i[N] and j[N] of an inventory."""

MIN_DISTANCE = 0.2
"""object_abs_distance: nearer pairs are skipped, metres."""
NEAREST_GAP, NEAREST_GAP_LARGE, LARGE_ROOM = 0.15, 0.30, 40.0
"""object_rel_distance: candidates must differ by this, metres; by more in rooms of more m2."""
DIRECTION_RANGE = (0.3, 5.0)
"""Relative direction: distance of each pair of the three objects, metres."""
DIRECTION_MARGIN = 10.0
"""Relative direction: degrees kept free on both sides of a border."""
APPEARANCE_GAP = 1.0
"""obj_appearance_order: seconds between first appearances, more than this."""

DIRECTIONS: dict[str, tuple[tuple[float, str], ...]] = {
    "object_rel_direction_easy": ((180.0, "left"), (360.0, "right")),
    "object_rel_direction_medium": ((135.0, "left"), (225.0, "back"), (360.0, "right")),
    "object_rel_direction_hard": (
        (90.0, "front-left"),
        (180.0, "back-left"),
        (270.0, "back-right"),
        (360.0, "front-right"),
    ),
}
"""Upper end in degrees, counter-clockwise from straight ahead, and name of each sector."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """Objects that may be asked about, N in all, grouped by category."""

    boxes: Boxes  # N boxes
    members: dict[str, Indices]  # category -> indices into boxes
    apart: PairDistance

    def singles(self) -> list[str]:
        """Categories with exactly one instance."""
        return [name for name, members in self.members.items() if len(members) == 1]


def inventory(objects: Sequence[SceneObject]) -> Inventory:
    """An inventory measured in closed form, on boxes as far in as the benchmark's samples lie."""
    boxes = stack(objects)
    matrix = distance_matrix(boxes.shrunk(SAMPLING_INSET))
    return Inventory(boxes, _group(objects), lambda i, j: matrix[i, j])


def exact_inventory(objects: Sequence[SceneObject]) -> Inventory:
    """An inventory measured between the closest points of the boxes, faces included."""
    boxes = stack(objects)
    return Inventory(
        boxes, _group(objects), lambda i, j: closest_distance(boxes.take(i), boxes.take(j))
    )


def sampled_inventory(objects: Sequence[SceneObject]) -> Inventory:
    """An inventory measured exactly as the benchmark did, slowly (`sampling`)."""
    boxes = stack(objects)
    return Inventory(
        boxes, _group(objects), lambda i, j: sampled_distance(boxes.take(i), boxes.take(j))
    )


def _group(objects: Sequence[SceneObject]) -> dict[str, Indices]:
    groups: dict[str, list[int]] = {}
    for index, item in enumerate(objects):
        groups.setdefault(item.category, []).append(index)
    return {name: np.array(indices, dtype=np.intp) for name, indices in groups.items()}


# --- Numbers -------------------------------------------------------------------------------------


def room_size_text(room_size: float) -> str:
    """Square metres, one decimal."""
    return f"{round(room_size, 1):.1f}"


def longest_side_text(size: Array) -> str:
    """Longest side of a box, whole centimetres."""
    return str(round(float(size.max()) * 100))


def distance_text(distance: float) -> str:
    """Metres, one decimal."""
    return f"{round(distance, 1):.1f}"


def category_distance(stock: Inventory, a: str, b: str) -> float:
    """Least distance between an instance of `a` and one of `b`, metres."""
    i, j = np.meshgrid(stock.members[a], stock.members[b], indexing="ij")
    return float(stock.apart(i.ravel(), j.ravel()).min())


# --- Which is the closest ------------------------------------------------------------------------


def nearest(stock: Inventory, candidates: Sequence[str], reference: str) -> str:
    """The candidate category with the instance nearest to the reference."""
    distances = [category_distance(stock, name, reference) for name in candidates]
    return candidates[int(np.argmin(distances))]


def nearest_gap(room_size: float | None) -> float:
    """How much the candidates' distances must differ, metres; unknown rooms count as large."""
    return NEAREST_GAP if room_size is not None and room_size <= LARGE_ROOM else NEAREST_GAP_LARGE


def is_clear_nearest(distances: Sequence[float] | Array, room_size: float | None) -> bool:
    """Whether candidates at these distances are far enough apart, and from the reference."""
    ordered = np.sort(np.asarray(distances, dtype=np.float64))
    gaps_are_clear = bool((np.diff(ordered) >= nearest_gap(room_size)).all())
    return gaps_are_clear and bool(ordered[0] >= NEAREST_GAP)


# --- Directions ----------------------------------------------------------------------------------


def bearing(standing: Array, facing: Array, target: Array) -> Array:
    """Degrees [...] counter-clockwise from the way one faces to the target, 0 <= b < 360.

    Points are [..., 2] or [..., 3]; heights do not count.
    """
    ahead, to = (facing - standing)[..., :2], (target - standing)[..., :2]
    cross = ahead[..., 0] * to[..., 1] - ahead[..., 1] * to[..., 0]
    dot = (ahead * to).sum(-1)
    result: Array = np.degrees(np.arctan2(cross, dot)) % 360.0
    return result


def direction(question_type: str, degrees: float) -> str:
    """Name of the sector a bearing falls into."""
    sectors = DIRECTIONS[question_type]
    return next((name for end, name in sectors if degrees < end), sectors[0][1])


def border_distance(question_type: str, degrees: Array) -> Array:
    """Degrees from each bearing to the nearest border between sectors."""
    ends = np.array([0.0] + [end for end, _ in DIRECTIONS[question_type]])
    result: Array = np.abs(degrees[..., None] - ends).min(-1)
    return result


def relative_direction(
    stock: Inventory, question_type: str, standing: str, facing: str, target: str
) -> str:
    """Where `target` is for someone at `standing` who faces `facing`; all single categories."""
    place = [stock.boxes.center[stock.members[name][0]] for name in (standing, facing, target)]
    return direction(question_type, float(bearing(*place)))


# --- Time ----------------------------------------------------------------------------------------


def appearance_order(first_seen: dict[str, float], names: Sequence[str]) -> tuple[str, ...]:
    """Categories by the time, in seconds, they came into view."""
    return tuple(sorted(names, key=lambda name: first_seen[name]))


def is_clear_order(times: Sequence[float] | Array) -> bool:
    """Whether first appearances lie far enough apart."""
    ordered = sorted(float(time) for time in times)
    return all(b - a > APPEARANCE_GAP for a, b in itertools.pairwise(ordered))
