"""Long streams: counts over chained scenes, revisits, query times, recall of an odd object."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.questions import Segment, stream_counting, stream_recall
from spatial_ttt.scenes.questions import streams as S
from spatial_ttt.scenes.scene import OrientedBox, Scene, SceneObject
from tests.scenes.places import flat, walk
from tests.scenes.questions.test_seen import film, scene_of


def segment(scene_id: str, names: str, pixels: list[list[int]], start: float) -> Segment:
    scene = replace(scene_of(*names.split()), scene_id=scene_id)
    visibility, camera = film(pixels)
    return Segment(scene, visibility, camera, start)


STREAM = [
    segment("one", "chair chair bed", [[50, 0, 50], [0, 50, 0]], 0.0),
    segment("two", "chair lamp lamp", [[50, 50, 0], [0, 0, 9]], 10.0),
    segment("one", "chair chair bed", [[50, 50, 50], [0, 0, 0]], 20.0),
]


def test_scenes_seen_twice_count_once() -> None:
    views = S.first_views(STREAM)
    assert views["chair"].clear_s == (0.0, 2.0, 10.0)
    assert [views["chair"].count(t) for t in (0, 1.9, 2, 10, 99)] == [1, 1, 2, 3, 3]
    assert S.stream_end(STREAM) == 22.0


def test_a_category_only_glimpsed_is_not_counted() -> None:
    asked = stream_counting("stream", STREAM, np.random.default_rng(0), 9)
    assert [(q.question, q.ground_truth) for q in asked] == [
        ("How many different chair(s) are there in the video?", "3")
    ]
    assert asked[0].visible_until_s == 22.0 and asked[0].query_times == ()


def test_answers_so_far_at_query_times() -> None:
    pieces = []
    for n in range(6):
        scene = flat(n, 2, 12)
        camera, visibility = walk(scene, n)
        full = np.where(visibility.pixels > 0, 500, 0).astype(np.int32)  # nothing only glimpsed
        pieces.append(Segment(scene, replace(visibility, pixels=full), camera, 40.0 * n))
    asked = stream_counting("s", pieces, np.random.default_rng(1), 5, 4)
    assert len(asked) == 5
    for question in asked:
        name = question.facts["categories"][0]
        assert question.query_times[-1] == question.visible_until_s == S.stream_end(pieces)
        assert list(question.query_times) == sorted(question.query_times)
        for time, answer in zip(question.query_times, question.query_answers, strict=True):
            seen: set[tuple[str, int]] = set()
            for piece in pieces:
                for frame, at in enumerate(piece.visibility.times):
                    if at + piece.start_s > time:
                        continue
                    for item in piece.scene.objects:
                        column = piece.visibility.object_ids.tolist().index(item.object_id)
                        if item.category == name and piece.visibility.pixels[frame, column] >= 1:
                            seen.add((piece.scene.scene_id, item.object_id))
            assert answer == str(len(seen))
        assert question.ground_truth == question.query_answers[-1]
    assert max(len(question.query_times) for question in asked) == 4


def test_unsure_moments_are_not_query_times() -> None:
    view = S.FirstViews(trace_s=(0.0, 5.0), clear_s=(0.0, 8.0))
    assert view.is_sure(4.9) and not view.is_sure(5.0) and view.is_sure(8.0)
    for seed in range(30):
        for time in S._query_times(view, 10.0, np.random.default_rng(seed), 5):
            assert not 5.0 <= time < 8.0


def odd_scene(scene_id: str, place: str, bear_first: float) -> Scene:
    def box(x: float, z: float, side: float) -> OrientedBox:
        return OrientedBox(np.array([x, 0, z]), np.full(3, side), np.eye(3))

    return Scene(
        scene_id,
        "test",
        (
            SceneObject(1, place, box(0, 0.5, 1.0)),
            SceneObject(2, "teddy bear", box(0, 1.1, 0.2)),  # on the place's top
            SceneObject(3, "plant", box(0.7, 0.2, 0.4)),  # nearer than it looks, but no bearer
        ),
    )


def odd_stream(places: str) -> list[Segment]:
    visibility, camera = film([[50, 0, 50], [50, 50, 50]])
    return [
        Segment(odd_scene(f"s{n}", place, 2.0), visibility, camera, 10.0 * n)
        for n, place in enumerate(places.split())
    ]


def test_recall_names_the_four_places_in_order() -> None:
    stream = odd_stream("bed table desk sofa")
    (question,) = stream_recall("s", stream, "teddy bear", np.random.default_rng(0))
    assert question.answer_text == "Bed, Table, Desk, Sofa"
    assert question.question == (
        "Which of the following correctly represents the order in which the teddy bear appeared "
        "in the video?"
    )
    assert question.facts["times_s"] == [2.0, 12.0, 22.0, 32.0]
    assert len(set(question.options or ())) == 4


@pytest.mark.parametrize("places", ["bed table desk", "bed bed desk sofa", "a b c d e"])
def test_recall_needs_four_different_places(places: str) -> None:
    assert not stream_recall("s", odd_stream(places), "teddy bear", np.random.default_rng(0))
    with pytest.raises(SceneError, match="4 different places"):
        seen = S.sightings(odd_stream("bed table"), "teddy bear")
        S.recall_question("s", "teddy bear", seen, 9.0, np.random.default_rng(0))


def test_a_place_must_be_the_only_one_of_its_kind_and_clearly_nearest() -> None:
    scene = scene_of("bed", "bear", "sofa")  # 2 m apart each: neither is nearer
    visibility, camera = film([[50, 50, 50]])
    assert S.sightings([Segment(scene, visibility, camera, 0.0)], "bear") == []
    scene = scene_of("bed", "bear", "lamp", "lamp")
    visibility, camera = film([[50, 50, 0, 0]])
    (sighting,) = S.sightings([Segment(scene, visibility, camera, 5.0)], "bear")
    assert sighting == S.Sighting(5.0, "bed"), "the lamps were not seen"


def test_an_empty_stream_is_an_error() -> None:
    with pytest.raises(SceneError, match="at least one"):
        S.stream_end([])
