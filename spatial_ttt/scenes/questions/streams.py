"""Questions about long streams: recall of an unusual object, counting over chained rooms.

A stream is a list of `Segment`s: a scene, what the camera saw of it, and when its part starts. A
scene walked through twice is one scene: its objects count once.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes import rules
from spatial_ttt.scenes.boxes import Bools
from spatial_ttt.scenes.questions import templates
from spatial_ttt.scenes.questions.appearance import NUM_ORDERED, order_options
from spatial_ttt.scenes.questions.numbers import spread
from spatial_ttt.scenes.questions.question import LETTERS, Question, lettered
from spatial_ttt.scenes.questions.seen import UNASKED, SeenRule, observe
from spatial_ttt.scenes.scene import Array, Camera, Scene, Visibility
from spatial_ttt.scenes.stacking import rests_on
from spatial_ttt.scenes.wording import spoken

UNSURE_SHARE = 0.05
"""vsc: largest share of a count that may be objects only glimpsed; beyond it nothing is asked."""
PLACE_GAP = 0.3
"""vsr: the place is the nearest object, nearer than any other category by this, metres."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a stream. Times of its camera and visibility count from its own start."""

    scene: Scene
    visibility: Visibility
    camera: Camera
    start_s: float


@dataclass(frozen=True, slots=True)
class Sighting:
    """When an object first came clearly into view, and next to what it was."""

    time_s: float
    place: str


# --- Counting ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FirstViews:
    """For every instance of a category seen in a stream: the first trace and first clear view."""

    trace_s: tuple[float, ...]
    clear_s: tuple[float, ...]  # inf: never clear

    def count(self, time_s: float) -> int:
        """Instances clearly seen by then."""
        return sum(time <= time_s for time in self.clear_s)

    def is_sure(self, time_s: float) -> bool:
        """Whether few enough instances were only glimpsed by then."""
        glimpsed = sum(time <= time_s for time in self.trace_s) - self.count(time_s)
        return glimpsed <= UNSURE_SHARE * self.count(time_s)


def first_views(segments: Sequence[Segment], rule: SeenRule | None = None) -> dict[str, FirstViews]:
    """First views by category over a whole stream, seconds from its start."""
    rule = rule or SeenRule()
    found: dict[str, dict[tuple[str, int], tuple[float, float]]] = {}
    for segment in segments:
        area = segment.camera.width * segment.camera.height
        pixels, times = segment.visibility.pixels, segment.visibility.times + segment.start_s
        clear = pixels >= max(rule.clear_share * area, 1.0)
        trace = pixels > rule.trace_share * area
        category = {item.object_id: item.category for item in segment.scene.objects}
        for n, object_id in enumerate(int(value) for value in segment.visibility.object_ids):
            name = category.get(object_id, "wall")
            if name in UNASKED or not trace[:, n].any():
                continue
            views = found.setdefault(name, {})
            key = (segment.scene.scene_id, object_id)
            before = views.get(key, (np.inf, np.inf))
            views[key] = (
                min(before[0], _first(trace[:, n], times)),
                min(before[1], _first(clear[:, n], times)),
            )
    return {
        name: FirstViews(tuple(v[0] for v in views.values()), tuple(v[1] for v in views.values()))
        for name, views in found.items()
    }


def _first(seen: Bools, times: Array) -> float:
    return float(times[seen.argmax()]) if seen.any() else float("inf")


def stream_counting(
    stream_id: str,
    segments: Sequence[Segment],
    rng: Generator,
    limit: int,
    num_queries: int = 0,
) -> list[Question]:
    """`vsc`: how many different instances of a category the stream shows.

    With `num_queries` the same question is asked at that many moments (the last one at the end),
    and `query_answers` hold the count so far at each.
    """
    end = stream_end(segments)
    views = first_views(segments)
    names = [
        name
        for name, view in views.items()
        if view.is_sure(end) and view.count(end) >= 2 and spoken(name) == name
    ]
    counts = np.array([views[name].count(end) for name in names], dtype=np.float64)
    questions = []
    for n in spread(counts, rng, limit):
        view = views[names[n]]
        times = _query_times(view, end, rng, num_queries)
        questions.append(
            Question(
                "vsc",
                templates.ask_stream_count(names[n]),
                None,
                str(view.count(end)),
                stream_id,
                end,
                {"categories": [names[n]]},
                tuple(times),
                tuple(str(view.count(time)) for time in times),
            )
        )
    return questions


def stream_end(segments: Sequence[Segment]) -> float:
    """The time of the stream's last frame, seconds."""
    if not segments:
        raise SceneError("a stream has no segment; give at least one")
    return max(segment.start_s + float(segment.camera.times[-1]) for segment in segments)


def _query_times(view: FirstViews, end: float, rng: Generator, num_queries: int) -> list[float]:
    """Sure moments with something to count, one in each equal part of the stream, then its end."""
    if num_queries < 1:
        return []
    borders = np.linspace(0.0, end, num_queries + 1)
    times = []
    for low, high in itertools.pairwise(borders[:-1]):
        tried = np.round(rng.uniform(low, high, size=8), 1)
        sure = [float(t) for t in tried if view.is_sure(float(t)) and view.count(float(t)) > 0]
        times += sure[:1]
    return sorted({*times, end})


# --- Recall --------------------------------------------------------------------------------------


def sightings(
    segments: Sequence[Segment], item: str, rule: SeenRule | None = None
) -> list[Sighting]:
    """Where and when instances of `item` first came into clear view, in order of time.

    An instance without a single clear place next to it is left out.
    """
    found: dict[tuple[str, int], Sighting] = {}
    for segment in segments:
        seen = observe(segment.scene, segment.visibility, segment.camera, rule=rule)
        items = [n for n, thing in enumerate(seen.objects) if thing.category == item]
        views = first_views([segment], rule).get(item)
        if not items or views is None:
            continue
        for n in items:
            place = _place(seen.stock, item, n)
            time = _first_clear_of(segment, seen.objects[n].object_id, rule or SeenRule())
            key = (segment.scene.scene_id, seen.objects[n].object_id)
            if place is not None and key not in found:
                found[key] = Sighting(time + segment.start_s, place)
    return sorted(found.values(), key=lambda sighting: sighting.time_s)


def _first_clear_of(segment: Segment, object_id: int, rule: SeenRule) -> float:
    column = int(np.flatnonzero(segment.visibility.object_ids == object_id)[0])
    needed = max(rule.clear_share * segment.camera.width * segment.camera.height, 1.0)
    return _first(segment.visibility.pixels[:, column] >= needed, segment.visibility.times)


def _place(stock: rules.Inventory, item: str, n: int) -> str | None:
    """What object n stands on, else the category clearly nearest; only if it has one instance."""
    mine = stock.boxes.take([n] * len(stock.boxes))
    bearers = np.flatnonzero(rests_on(mine, stock.boxes))
    for name, members in stock.members.items():
        if len(members) == 1 and members[0] in bearers:
            return name
    distances = sorted(
        (float(stock.apart(np.full(len(members), n), members).min()), name)
        for name, members in stock.members.items()
        if name != item
    )
    if not distances or (len(distances) > 1 and distances[1][0] - distances[0][0] < PLACE_GAP):
        return None
    name = distances[0][1]
    return name if len(stock.members[name]) == 1 else None


def stream_recall(
    stream_id: str, segments: Sequence[Segment], item: str, rng: Generator
) -> list[Question]:
    """`vsr`: the order of the four places where an unusual object was seen; [] if not clear."""
    seen = sightings(segments, item, None)
    places = tuple(sighting.place for sighting in seen)
    times = [sighting.time_s for sighting in seen]
    if len(set(places)) != NUM_ORDERED or len(places) != NUM_ORDERED:
        return []
    if not rules.is_clear_order(times):
        return []
    return [recall_question(stream_id, item, seen, stream_end(segments), rng)]


def recall_question(
    stream_id: str, item: str, seen: Sequence[Sighting], until_s: float, rng: Generator
) -> Question:
    """The question itself, from four sightings at different places in order of time."""
    places = tuple(sighting.place for sighting in seen)
    if len(places) != NUM_ORDERED or len(set(places)) != NUM_ORDERED:
        raise SceneError(f"vsr needs {NUM_ORDERED} different places, got {places}")
    options = order_options(tuple(place.capitalize() for place in places), rng)
    order = rng.permutation(len(options))
    return Question(
        "vsr",
        templates.ask_recall(item),
        lettered([options[n] for n in order]),
        LETTERS[int(np.flatnonzero(order == 0)[0])],
        stream_id,
        until_s,
        {"categories": [item, *places], "times_s": [sighting.time_s for sighting in seen]},
    )
