"""A second way to every answer, slow and plain, sharing no routine with the package.

Questions are read from their words alone by splitting text; objects are looked up in loops;
distances come from bounded least squares, directions from complex numbers, routes from a robot that
takes steps of two centimetres.
"""

from __future__ import annotations

import cmath
import itertools
import math
import re

import numpy as np
from scipy.optimize import lsq_linear

from spatial_ttt.scenes.questions.question import Question
from spatial_ttt.scenes.scene import Camera, Scene, SceneObject, Visibility

INSET = 0.02  # metres: the benchmark's samples lie this far under a box's faces
CLEAR, TRACE = 0.002, 0.0001  # shares of a frame
ROBOT = 0.2  # metres: half its width


class Witness:
    """Someone who watched the video up to a moment, and answers from what was then known."""

    def __init__(
        self, scene: Scene, camera: Camera, visibility: Visibility, until_s: float = math.inf
    ) -> None:
        self.scene = scene
        self.camera = camera
        area = camera.width * camera.height
        self.seen: list[SceneObject] = []
        self.glimpsed: set[str] = set()
        self.first_clear: dict[str, float] = {}
        self.first_trace: dict[str, float] = {}
        for item in scene.objects:
            column = visibility.object_ids.tolist().index(item.object_id)
            clear_at, trace_at = None, None
            for frame, time in enumerate(visibility.times.tolist()):
                if time > until_s:
                    break
                pixels = int(visibility.pixels[frame, column])
                if trace_at is None and pixels > TRACE * area:
                    trace_at = time
                if clear_at is None and pixels >= CLEAR * area and pixels >= 1:
                    clear_at = time
            if clear_at is not None:
                self.seen.append(item)
                for first, time in (
                    (self.first_clear, clear_at),
                    (self.first_trace, clear_at if trace_at is None else trace_at),
                ):
                    first[item.category] = min(first.get(item.category, math.inf), time)
            elif trace_at is not None:
                self.glimpsed.add(item.category)

    def all_of(self, category: str) -> list[SceneObject]:
        """The instances one knows of; asking about a category only glimpsed is an error."""
        assert category not in self.glimpsed, f"{category} was glimpsed only"
        found = [item for item in self.seen if item.category == category]
        assert found, f"{category} was not seen"
        return found

    def only(self, category: str) -> SceneObject:
        (item,) = self.all_of(category)
        return item

    def answer(self, question: Question) -> str:
        """The answer in words, from the words of the question."""
        return getattr(self, "_" + question.question_type)(question.question, question)

    # --- Numbers

    def _object_counting(self, words: str, _: Question) -> str:
        category = words.removeprefix("How many ").removesuffix("(s) are in this room?")
        count = len(self.all_of(category))
        assert count >= 2
        return str(count)

    def _object_abs_distance(self, words: str, _: Question) -> str:
        a, b = (
            words.split("distance between the ")[1].removesuffix(" (in meters)?").split(" and the ")
        )
        metres = least_squares(self.only(a), self.only(b))
        assert metres >= 0.2 - 1e-6
        return f"{metres:.1f}"

    def _object_size_estimation(self, words: str, _: Question) -> str:
        category = words.split("height) of the ")[1].split(", measured")[0]
        return f"{100 * max(self.only(category).box.size.tolist()):.0f}"

    def _room_size_estimation(self, _: str, __: Question) -> str:
        walked = self.camera.camera_to_world[:, :2, 3]
        for room in self.scene.rooms:
            low, high = room.polygon.min(0), room.polygon.max(0)  # rooms are rectangles here
            assert any((low <= spot).all() and (spot <= high).all() for spot in walked)
        assert self.scene.room_size is not None
        return f"{self.scene.room_size:.1f}"

    # --- Places

    def _object_rel_distance(self, words: str, question: Question) -> str:
        names = words.split("these objects (")[1].split(")")[0].split(", ")
        reference = self.only(words.split("closest to the ")[1].split("?")[0])
        assert reference.category not in names and len(set(names)) == 4
        nearest = {
            name: min(least_squares(item, reference) for item in self.all_of(name))
            for name in names
        }
        several = any(len(self.all_of(name)) > 1 for name in names)
        assert several == ("multiple instances" in words)
        ordered = sorted(nearest.values())
        size = self.scene.room_size or math.inf
        least = 0.15 if size <= 40 else 0.30
        assert ordered[0] >= 0.15 - 1e-6
        assert all(b - a >= least - 1e-6 for a, b in itertools.pairwise(ordered))
        return min(nearest, key=lambda name: nearest[name])

    def _turn(self, words: str) -> float:
        """Degrees to turn left, 0 to 360, to face the target."""
        standing, rest = words.split("standing by the ")[1].split(" and facing the ", 1)
        facing, rest = rest.split(", is the ", 1)
        target = re.split(r" to (?:my|the left) ?", rest)[0]
        items = [self.only(name) for name in (standing, facing, target)]
        for a, b in ((0, 1), (0, 2), (1, 2)):
            assert 0.3 - 1e-6 <= least_squares(items[a], items[b]) <= 5.0 + 1e-6
        here, ahead, there = (complex(*item.box.center[:2]) for item in items)
        return math.degrees(cmath.phase((there - here) / (ahead - here))) % 360

    def _object_rel_direction_easy(self, words: str, _: Question) -> str:
        turn = self._turn(words)
        assert min(turn, abs(turn - 180), 360 - turn) >= 10 - 1e-6
        return "left" if turn < 180 else "right"

    def _object_rel_direction_medium(self, words: str, _: Question) -> str:
        turn = self._turn(words)
        assert min(turn, abs(turn - 135), abs(turn - 225), 360 - turn) >= 10 - 1e-6
        return "back" if 135 <= turn <= 225 else "left" if turn < 135 else "right"

    def _object_rel_direction_hard(self, words: str, _: Question) -> str:
        turn = self._turn(words)
        assert min(turn % 90, 90 - turn % 90) >= 10 - 1e-6
        rest = turn if turn < 180 else 360 - turn
        return ("front" if rest < 90 else "back") + "-" + ("left" if turn < 180 else "right")

    # --- Time

    def _obj_appearance_order(self, words: str, _: Question) -> str:
        names = words.split("in the video: ")[1].removesuffix("?").split(", ")
        assert not self.glimpsed & set(names)
        order = sorted(names, key=lambda name: self.first_clear[name])
        for before, after in itertools.pairwise(order):
            assert self.first_trace[after] > self.first_clear[before] + 1.0
        return ", ".join(order)

    # --- Routes

    def _route_planning(self, words: str, question: Question) -> str:
        start = words.split("beginning at the ")[1].split(" and facing the ")[0]
        facing = words.split(" and facing the ")[1].split(". You want")[0]
        goal = words.split("navigate to the ")[1].split(". You will")[0]
        steps = re.split(r"(?:^| )\d\. ", words.split("turn right.'): ")[1])[1:]
        spot = complex(*self.only(start).box.center[:2])
        heading = complex(*self.only(facing).box.center[:2]) - spot
        turns: list[str] = []
        here, mark = self.only(start), spot
        for n, step in enumerate(steps):
            if step.startswith("[please"):
                landmark = self.only(_landmark(steps[n + 1]))
                target = complex(*landmark.box.center[:2])
                angle = math.degrees(cmath.phase((target - mark) / heading)) % 360
                turns.append(_turn_name(angle))
                again = math.degrees(cmath.phase((target - spot) / heading)) % 360
                assert _turn_name(again) == turns[-1], "the turn depends on where one stands"
                heading = target - spot
            else:
                landmark = self.only(_landmark(step))
                spot = self._roll(spot, here, landmark)
                target = complex(*landmark.box.center[:2])
                heading = target - spot if abs(target - spot) > 0 else heading
                here, mark = landmark, target
        assert here.category == goal
        assert len({start, *(_landmark(s) for s in steps if "forward" in s)}) == 1 + sum(
            "forward" in s for s in steps
        )
        return ", ".join(turns)

    def _roll(self, spot: complex, leaving: SceneObject, landmark: SceneObject) -> complex:
        """Roll straight towards a landmark's centre in small steps until just before it."""
        target = complex(*landmark.box.center[:2])
        step = 0.02 * (target - spot) / abs(target - spot)
        at_start = _gap(spot, leaving) <= ROBOT + 0.05
        for _ in range(int(abs(target - spot) / 0.02)):
            if _gap(spot, landmark) <= ROBOT + 0.06:
                return spot
            before, spot = spot, spot + step
            if at_start and _gap(spot, leaving) <= ROBOT + 0.05:
                continue  # still at the edge of where it stood
            at_start = False
            for item in self.scene.objects:
                low = item.box.center[2] - item.box.size[2] / 2
                if item is landmark or low >= 1.5 or low + item.box.size[2] <= 0.12:
                    continue
                assert _gap(spot, item) > ROBOT - 0.03, f"rolled into {item.category}"
            self._check_walls(before, spot)
        raise AssertionError("never reached the landmark")

    def _check_walls(self, a: complex, b: complex) -> None:
        """A step out of a room must lead through one of its doors."""
        for room in self.scene.rooms:
            low, high = room.polygon.min(0), room.polygon.max(0)
            inside = [bool(low[0] < p.real < high[0] and low[1] < p.imag < high[1]) for p in (a, b)]
            if inside[0] != inside[1]:
                doors = [
                    o for o in self.scene.openings if room.room_id in o.rooms and o.kind == "door"
                ]
                assert any(_in_doorway(b, *o.start, *o.end) for o in doors), "through a wall"


def _in_doorway(spot: complex, x0: float, y0: float, x1: float, y1: float) -> bool:
    """Whether a spot lies between a door's posts, well clear of both, near the wall's line."""
    post, other = complex(x0, y0), complex(x1, y1)
    local = (spot - post) / (other - post) * abs(other - post)  # along the door, across it
    return 0.15 < local.real < abs(other - post) - 0.15 and abs(local.imag) < 0.3


def _landmark(step: str) -> str:
    return step.removeprefix("Go forward until the ").split(". You have")[0].rstrip(". ")


def _turn_name(angle: float) -> str:
    assert min(angle, 360 - angle) > 30, "straight on is no turn"
    return "Turn Back" if 135 < angle < 225 else "Turn Left" if angle < 180 else "Turn Right"


def _gap(spot: complex, item: SceneObject) -> float:
    """Distance on the floor plan from a spot to an upright box, by its four sides."""
    box = item.box
    local = (np.array([spot.real, spot.imag]) - box.center[:2]) @ box.axes[:2, :2].T
    outside = np.maximum(np.abs(local) - box.size[:2] / 2, 0.0)
    return float(np.max(outside))  # along the box's own axes, as the robot's strip is cut


def least_squares(a: SceneObject, b: SceneObject) -> float:
    """Metres between two boxes that were first shrunk by the inset."""
    matrix = np.hstack([a.box.axes.T, -b.box.axes.T])
    half = np.concatenate([a.box.size / 2, b.box.size / 2])
    half = np.maximum(half - INSET, 0) + 1e-12
    found = lsq_linear(
        matrix, b.box.center - a.box.center, bounds=(-half, half), tol=1e-14, method="bvls"
    )
    return float(np.sqrt(2 * found.cost))
