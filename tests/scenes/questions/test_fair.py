"""Fair questions: what reading many questions teaches no longer pays."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from spatial_ttt.scenes.homes import home_seed, make_home
from spatial_ttt.scenes.questions import QUESTION_TYPES, Question, generate, generate_fair, observe
from spatial_ttt.scenes.questions.fair import EVEN, keep_unexpected
from spatial_ttt.scenes.questions.guessing import (
    TABLES,
    Guesser,
    learn,
    shipped_guesser,
    size_step,
)
from spatial_ttt.scenes.questions.question import lettered
from spatial_ttt.scenes.questions.seen import Observation
from spatial_ttt.scenes.walk import walk
from tests.scenes.places import look


def count(category: str, answer: int) -> Question:
    words = f"How many {category}(s) are in this room?"
    facts = {"categories": [category]}
    return Question("object_counting", words, None, str(answer), "s", 0.0, facts)


def size(category: str, answer: int) -> Question:
    facts = {"categories": [category]}
    return Question("object_size_estimation", "How long?", None, str(answer), "s", 0.0, facts)


def nearest(reference: str, right: str, *wrong: str) -> Question:
    facts = {"categories": [reference, right, *wrong]}
    options = lettered([right, *wrong])
    return Question("object_rel_distance", "Which?", options, "A", "s", 0.0, facts)


def order(*names: str) -> Question:
    options = lettered([", ".join(names), ", ".join(reversed(names))])
    facts = {"categories": list(names)}
    return Question("obj_appearance_order", "Which?", options, "A", "s", 0.0, facts)


@pytest.fixture(scope="module")
def seen() -> list[Observation]:
    found = []
    for n in range(40):
        home = make_home(home_seed("val", n), num_rooms=1 + n % 3)
        camera = walk(home, n, fps=1.0, width=64, height=48, duration_s=32.0)
        found.append(observe(home.scene, look(home.scene, camera), camera))
    return found


def test_a_guesser_expects_what_it_read() -> None:
    read = [*[count("bed", 2)] * 30, *[count("bed", 3)] * 10, size("bed", 200), size("tv", 90)]
    guesser = Guesser(learn(read))
    assert guesser.expects(count("bed", 2)) == pytest.approx(30.5 / 41)
    assert guesser.expects(count("bed", 4)) == pytest.approx(0.5 / 41)
    assert guesser.expects(size("bed", 201)) == pytest.approx(0.75)
    assert guesser.expects(size("bed", 120)) == pytest.approx(0.25)
    assert guesser.expects(count("tv", 2)) is None, "no tv was ever counted"
    assert size_step("100") == "48" and size_step("109") == "48" and size_step("111") == "49"


def test_a_guesser_knows_what_lies_near_what_and_comes_first() -> None:
    read = [nearest("sofa", "pillow", "stove", "cup", "tv")] * 12
    read += [nearest("stove", "pot", "pillow", "cup", "tv")] * 12
    read += [order("sofa", "tv", "lamp", "ceiling light")] * 5
    guesser = Guesser(learn(read))
    near = nearest("sofa", "pillow", "cup", "tv", "stove")
    assert guesser.guess(near) == "A" and (guesser.expects(near) or 0.0) > 0.6
    elsewhere = nearest("bathtub", "tv", "pillow", "cup", "stove")
    assert guesser.chances(elsewhere)[1] == max(guesser.chances(elsewhere)), "from its own record"
    assert guesser.guess(order("sofa", "lamp", "tv", "ceiling light")) == "A"
    assert guesser.guess(order("ceiling light", "tv", "lamp", "sofa")) == "B"
    assert sum(guesser.chances(near)) == pytest.approx(1.0)


def test_what_is_kept_has_all_answers_alike_given_the_words() -> None:
    """Nine of ten homes with two lamps, one of ten with five; chairs the other way round."""
    pool = [count("lamp", 2)] * 900 + [count("lamp", 5)] * 100
    pool += [count("chair", 5)] * 900 + [count("chair", 2)] * 100
    guesser = Guesser(learn(pool))
    kept = keep_unexpected(pool, np.random.default_rng(0), guesser)
    met = Counter((q.facts["categories"][0], q.ground_truth) for q in kept)
    for category in ("lamp", "chair"):
        assert met[category, "2"] == pytest.approx(met[category, "5"], rel=0.25)


def test_what_nobody_can_guess_is_always_kept() -> None:
    guesser = Guesser(learn([count("bed", 2)] * 99))
    easy = Question("room_size_estimation", "How large?", None, "12.0", "s", 0.0)
    unknown = [count("tv", 2), nearest("a", "b", "c", "d", "e"), easy]
    kept = keep_unexpected(unknown * 50, np.random.default_rng(0), guesser)
    assert Counter(q.question_type for q in kept)["object_counting"] == 50
    assert Counter(q.question_type for q in kept)["room_size_estimation"] == 50
    common = keep_unexpected([count("bed", 2)] * 400, np.random.default_rng(0), guesser)
    assert 20 <= len(common) <= 65, "one of ten"


def test_fair_questions_are_questions_and_no_more_than_wanted(seen: list[Observation]) -> None:
    limits = dict.fromkeys(QUESTION_TYPES, 2) | {"object_counting": 1, "route_planning": 0}
    for n, one in enumerate(seen[:8]):
        asked = generate_fair(one, np.random.default_rng(n), limits)
        again = generate_fair(one, np.random.default_rng(n), limits)
        assert asked == again
        for kind, number in Counter(q.question_type for q in asked).items():
            assert 0 < number <= limits[kind]


def test_the_shipped_habits_pay_less_on_fair_questions(seen: list[Observation]) -> None:
    guesser = shipped_guesser()
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    expected: dict[str, list[float]] = {"plain": [], "fair": []}
    for name, ask in (("plain", generate), ("fair", generate_fair)):
        for n, one in enumerate(seen):
            for question in ask(one, np.random.default_rng(n), 4):
                if question.question_type == "object_counting":
                    expected[name].append(guesser.expects(question) or 0.0)
                if question.question_type in ("object_rel_distance", "obj_appearance_order"):
                    right[name] += guesser.guess(question) == question.ground_truth
                    asked[name] += 1
    assert right["plain"] / asked["plain"] > 0.34, "habits of other homes hold here too"
    assert right["fair"] / asked["fair"] < 0.31
    assert np.mean(expected["fair"]) < np.mean(expected["plain"]) - 0.1


def test_shipped_tables_are_in_order() -> None:
    tables = json.loads(TABLES.read_text())
    assert TABLES.stat().st_size < 100_000
    assert set(tables) == {"count", "size", "near", "order"}
    assert {"chair", "curtain"} <= set(tables["count"]) and {"sofa", "tv"} <= set(tables["size"])
    for pairs in tables["near"].values():
        assert all(0 <= won <= offered for offered, won in pairs.values())
    assert set(EVEN) <= set(QUESTION_TYPES)
