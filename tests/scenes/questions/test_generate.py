"""Every generated answer, derived a second time from the words; and the mix of questions."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.homes import make_home
from spatial_ttt.scenes.questions import (
    GENERATORS,
    QUESTION_TYPES,
    generate,
    observe,
    observe_all,
    question_to_json,
    sample,
)
from spatial_ttt.scenes.questions.question import LETTERS, Question
from spatial_ttt.scenes.walk import walk as walk_home
from tests.scenes.places import flat, look, walk
from tests.scenes.questions.rederive import Witness

FLATS = 60
_LAST_DIGIT = 0.1 + 1e-9


@pytest.mark.parametrize("until_share", [1.0, 0.5])
def test_every_answer_is_derived_a_second_time(until_share: float) -> None:
    met: Counter[str] = Counter()
    for seed in range(FLATS):
        scene = flat(seed, 1 + seed % 4, 6 + seed % 6)
        camera, visibility = walk(scene, seed)
        until = until_share * float(camera.times[-1])
        seen = observe(scene, visibility, camera, until)
        witness = Witness(scene, camera, visibility, until)
        for question in generate(seen, np.random.default_rng(seed), 3):
            if question.question_type == "room_size_estimation" and until_share < 1:
                continue  # the witness cannot tell which rooms were entered by then
            agree(question, witness.answer(question))
            met[question.question_type] += 1
            assert question.visible_until_s == until
    assert set(met) == set(QUESTION_TYPES) - (
        {"room_size_estimation"} if until_share < 1 else set()
    )
    assert min(met.values()) >= 25, met


def test_answers_about_furnished_homes_are_derived_a_second_time() -> None:
    met: Counter[str] = Counter()
    for seed in range(12):
        home = make_home(seed)
        camera = walk_home(home, seed, fps=1.0, width=64, height=48)
        visibility = look(home.scene, camera)
        witness = Witness(home.scene, camera, visibility)
        seen = observe(home.scene, visibility, camera)
        for question in generate(seen, np.random.default_rng(seed), 3):
            agree(question, witness.answer(question))
            met[question.question_type] += 1
    assert set(met) == set(QUESTION_TYPES)


def agree(question: Question, expected: str) -> None:
    """The same words, or numbers at most a last digit apart: a tie may round either way."""
    if question.options is None:
        assert abs(float(question.answer_text) - float(expected)) <= _LAST_DIGIT, question
    else:
        assert question.answer_text == expected, question


def test_options_hold_the_answer_once() -> None:
    scene = flat(5, 3)
    seen = observe(*_watched(5, 3))
    for question in generate(seen, np.random.default_rng(0), 4):
        assert question.scene_id == scene.scene_id
        if question.options is None:
            float(question.ground_truth)
        else:
            assert len(set(question.options)) == len(question.options) in (2, 3, 4)
            assert question.ground_truth in LETTERS[: len(question.options)]
            letters = [option[:3] for option in question.options]
            assert letters == [f"{letter}. " for letter in LETTERS[: len(letters)]]


def _watched(seed: int, rooms: int):  # type: ignore[no-untyped-def]
    scene = flat(seed, rooms)
    camera, visibility = walk(scene, seed)
    return scene, visibility, camera


def test_the_same_seed_gives_the_same_bytes() -> None:
    def text(seed: int) -> str:
        seen = observe(*_watched(7, 2))
        asked = generate(seen, np.random.default_rng(seed), 3)
        return json.dumps([question_to_json(question) for question in asked])

    assert text(1) == text(1)
    assert text(1) != text(2)


def test_limits_hold_per_type() -> None:
    seen = observe(*_watched(9, 3))
    asked = generate(seen, np.random.default_rng(0), {"object_counting": 1, "route_planning": 0})
    assert Counter(question.question_type for question in asked) == {"object_counting": 1}
    for kind, generator in GENERATORS.items():
        assert generator(seen, np.random.default_rng(0), 0) == []
        assert all(
            question.question_type == kind
            for question in generator(seen, np.random.default_rng(0), 2)
        )
    with pytest.raises(SceneError, match="unknown question types"):
        generate(seen, np.random.default_rng(0), {"colour": 1})


def test_a_sample_is_mixed() -> None:
    seen = observe(*_watched(11, 3))
    asked = sample(seen, np.random.default_rng(0), 12)
    assert len(asked) == 12
    assert len({question.question_type for question in asked}) >= 8
    only = sample(seen, np.random.default_rng(0), 5, ("object_counting", "object_abs_distance"))
    assert {q.question_type for q in only} == {"object_counting", "object_abs_distance"}


def test_scans_without_a_camera_are_asked_about_too() -> None:
    seen = observe_all(flat(13, 1))
    kinds = {q.question_type for q in generate(seen, np.random.default_rng(0), 2)}
    assert kinds == set(QUESTION_TYPES) - {"obj_appearance_order"}


def test_an_empty_view_gives_no_questions() -> None:
    scene, visibility, camera = _watched(2, 1)
    visibility.pixels[:] = 0
    asked = generate(observe(scene, visibility, camera), np.random.default_rng(0), 3)
    assert {question.question_type for question in asked} <= {"room_size_estimation"}
