"""Something to remember: placed by one thing, seen, asked about in the right order."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from spatial_ttt.scenes.catalogue import UNUSUAL
from spatial_ttt.scenes.chain import LANDMARKS, Spot
from spatial_ttt.scenes.dice import Dice
from spatial_ttt.scenes.homes import home_seed
from spatial_ttt.scenes.questions.templates import ask_recall
from spatial_ttt.scenes.scene import Visibility
from spatial_ttt.train import recall
from spatial_ttt.train.clip_types import Chain, Needle, Record, categories
from spatial_ttt.train.scene_worker import make_walk
from tests.train import clips
from tests.train.test_scene_worker import WALK

INDEX = {name: n for n, name in enumerate(categories())}
PLACES = ("bed", "desk", "coffee table", "piano")


def test_a_home_gains_one_unusual_thing_by_a_landmark_where_the_camera_goes() -> None:
    found = Counter[str]()
    for number in range(24):
        seed = home_seed("val", 300 + number)
        home, camera = make_walk(seed, clips.SPEC, WALK, np.random.default_rng(number))
        hidden = recall.hide(home, camera, Dice(seed, 23))
        if hidden is None:
            continue
        grown, spot = hidden
        assert len(grown.scene.objects) == len(home.scene.objects) + 1
        thing = next(item for item in grown.scene.objects if item.object_id == spot.object_id)
        assert thing.category == spot.category in UNUSUAL and spot.landmark in LANDMARKS
        assert not any(item.category == spot.category for item in home.scene.objects)
        assert thing.room_id == spot.room_id
        near = [
            float(np.linalg.norm(item.box.center[:2] - thing.box.center[:2]))
            for item in grown.scene.objects
            if item.category == spot.landmark
        ]
        assert min(near) < 3.0
        found[spot.landmark] += 1
    assert sum(found.values()) >= 10 and len(found) >= 4


def test_a_home_that_has_the_thing_is_left_alone() -> None:
    """Hidden once, it is there; the same dice would hide it again."""
    checked = 0
    for number in range(8):
        seed = home_seed("val", 300 + number)
        home, camera = make_walk(seed, clips.SPEC, WALK, np.random.default_rng(number))
        hidden = recall.hide(home, camera, Dice(seed, 23))
        if hidden is not None:
            assert recall.hide(hidden[0], camera, Dice(seed, 23)) is None
            checked += 1
    assert checked >= 3


def test_only_what_is_clearly_seen_is_remembered() -> None:
    camera = clips.view().camera
    spot = Spot("guitar", 7, "bed", 3, 0)
    ids = np.array([3, 7], np.int32)
    pixels = np.zeros((len(camera.times), 2), np.int32)
    pixels[:, 0] = 500
    visibility = Visibility(ids, pixels, camera.times)
    assert recall.needle(spot, visibility, camera, INDEX) is None
    pixels[3, 1], pixels[5, 1] = 5, 4  # of 64 x 32: 0.002 are 4.1
    found = recall.needle(spot, visibility, camera, INDEX)
    assert found is not None and np.flatnonzero(found.clear).tolist() == [3]
    assert (found.item, found.place) == (INDEX["guitar"], INDEX["bed"])


def test_by_what_a_thing_stands_is_asked_of_two_that_are_seen_and_of_all() -> None:
    """The chair is no landmark; both orders come up."""
    spot = Spot("guitar", 7, "bed", 3, 0)
    words = set()
    for seed in range(20):
        seen = {"sofa": 0.5, "bed": 1.0, "desk": 2.0, "chair": 0.0}
        asked = recall.spot_questions(spot, seen, np.random.default_rng(seed))
        assert asked[0] == ("dense_spot", "Next to what is the guitar?", "bed")
        assert {(kind, answer) for kind, _, answer in asked} == {("dense_spot", "bed")}
        words |= {question for _, question, _ in asked[1:]}
    pairs = [(a, b) for o in ("sofa", "desk") for a, b in ((o, "bed"), ("bed", o))]
    assert words == {f"Is the guitar next to the {a} or the {b}?" for a, b in pairs}
    assert len(recall.spot_questions(spot, recall.LANDMARKS, np.random.default_rng(0))) == 4


def records(*needles: tuple[str, str, int]) -> list[Record | None]:
    """Clips with a thing by a landmark, clearly seen in one frame of eight."""
    clip = clips.ring().records[clips.ring().ready[0]]
    assert clip is not None
    return [
        clip._replace(needle=Needle(INDEX[item], INDEX[place], np.arange(8) == frame))
        for item, place, frame in needles
    ]


def test_four_clips_show_one_thing_by_different_furniture() -> None:
    many = records(
        ("guitar", "bed", 0), ("guitar", "bed", 2), ("guitar", "desk", 4), ("globe", "sofa", 0),
        ("guitar", "sofa", 3), ("guitar", "piano", 6), ("globe", "bed", 2),
    )  # fmt: skip
    by_item = recall.hidden([*many, None], [0, 1, 2, 3, 4, 5, 6])
    assert by_item == {INDEX["guitar"]: [0, 1, 2, 4, 5], INDEX["globe"]: [3, 6]}
    seen = set()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        four = recall.draw_hidden(many, by_item, Chain(1).shown(4), 4, rng)
        assert {one.item for _, one in four} == {INDEX["guitar"]}
        assert len({one.place for _, one in four}) == 4
        assert all(many[place].needle is one for place, one in four)
        seen.add(tuple(place for place, _ in four))
    assert len(seen) > 4
    # Of every second frame the fourth is not shown: three are left, which are too few.
    half = Chain(1, 2).shown(4)
    assert recall.draw_hidden(many, by_item, half, 4, np.random.default_rng(0)) == []
    assert len(recall.draw_hidden(many, by_item, half, 3, np.random.default_rng(0))) == 3


@pytest.mark.parametrize(("homes", "count"), [(2, 2), (4, 4), (6, 4), (60, 4)])
def test_the_things_homes_are_spread_over_the_stream(homes: int, count: int) -> None:
    for seed in range(20):
        slots = 5 * homes
        due = recall.spread_out(slots, 5, count, np.random.default_rng(seed))
        assert len(due) == count and due[-1] <= slots - 5
        assert all(a + 5 <= b for a, b in pairwise(due))
        assert all(n * slots // count <= slot for n, slot in enumerate(due))
    assert recall.spread_out(40, 5, 0, np.random.default_rng(0)) == []


def test_small_steps_say_where_the_thing_was_and_which_came_first() -> None:
    order = {place: n for n, place in enumerate(PLACES)}
    first = Counter[bool]()
    for seed in range(20):
        asked = recall.small_steps("guitar", PLACES, np.random.default_rng(seed))
        assert asked[:4] == [
            (f"Next to what did the guitar appear {ordinal}?", place)
            for ordinal, place in zip(("first", "second", "third", "fourth"), PLACES, strict=True)
        ]
        assert len(set(asked)) == 7
        for words, answer in asked[4:]:
            a, b = words.removesuffix("?").split("first, the ")[1].split(" or the ")
            assert answer == min(a, b, key=order.__getitem__) and a != b
            first[answer == a] += 1
    assert 0.3 < first[True] / 60 < 0.7
    assert len(recall.small_steps("guitar", PLACES[:2], np.random.default_rng(0))) == 3


def test_the_benchmarks_question_has_the_right_order_among_its_options() -> None:
    answers = set()
    for seed in range(10):
        asked = recall.orders("guitar", PLACES, np.random.default_rng(seed))
        assert len({question.options for question in asked}) > 1
        for question in asked:
            assert question.question == ask_recall("guitar") and len(question.options or ()) == 4
            assert question.answer_text == "Bed, Desk, Coffee table, Piano"
            answers.add(question.ground_truth)
    assert answers == set("ABCD")
    assert recall.orders("guitar", PLACES[:3], np.random.default_rng(0)) == []
    assert recall.order_in_words("guitar", PLACES)[1] == asked[0].answer_text
