"""Balancing: blind answers near chance on made-up homes, and on pools rigged against it."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from spatial_ttt.scenes.questions import (
    Question,
    balance,
    blind_scores,
    generate,
    observe,
    question_to_json,
)
from spatial_ttt.scenes.questions import balance as package_level
from spatial_ttt.scenes.questions.balance import (
    deal_letters,
    group_by_type,
    relative_accuracy,
    with_letter,
)
from spatial_ttt.scenes.questions.question import lettered
from tests.scenes.places import flat, walk


def number(value: float) -> Question:
    return Question("object_counting", "How many?", None, f"{value:g}", "s", 0.0)


def pick(right: str, *wrong: str, letter: str = "A") -> Question:
    question = Question(
        "object_rel_direction_hard", "Where?", lettered([right, *wrong]), "A", "s", 0.0
    )
    return with_letter(question, letter)


@pytest.fixture(scope="module")
def pool() -> list[Question]:
    questions = []
    for seed in range(120):
        scene = flat(seed, 1 + seed % 4, 5 + seed % 9)
        camera, visibility = walk(scene, seed)
        seen = observe(scene, visibility, camera)
        questions += generate(seen, np.random.default_rng(seed), 3)
    return questions


def test_relative_accuracy_by_hand() -> None:
    truth = np.array([10.0])
    for guess, expected in ((10, 1.0), (11.2, 0.8), (12.2, 0.6), (14.9, 0.1), (15.1, 0.0)):
        assert relative_accuracy(np.array([guess]), truth)[0, 0] == pytest.approx(expected)


def test_blind_answers_gain_nothing_on_generated_questions(pool: list[Question]) -> None:
    before = blind_scores(pool)
    assert before["object_counting"][0] > 0.45, "unbalanced, a constant would pay"
    kept = balance(pool, np.random.default_rng(0))
    sizes = {kind: len(group) for kind, group in group_by_type(kept).items()}
    for kind, (score, chance) in blind_scores(kept).items():
        if sizes[kind] < 40:
            continue  # chance itself strays this far
        assert score <= (chance + 0.05 if chance else 0.40), kind
    counts, left = (Counter(q.question_type for q in some) for some in (pool, kept))
    assert all(left[kind] >= 0.05 * counts[kind] - 1 for kind in counts)
    assert len(kept) > 0.5 * len(pool)


def test_the_kept_questions_are_the_pools(pool: list[Question]) -> None:
    """In the pool's order, with nothing changed but where the right option stands."""
    kept = balance(pool, np.random.default_rng(0))
    place = iter(pool)
    for question in kept:
        original = next(q for q in place if q.facts == question.facts
                        and q.question_type == question.question_type)  # fmt: skip
        assert question.answer_text == original.answer_text
        mine, its = ({o[3:] for o in q.options or ()} for q in (question, original))
        assert mine == its


def test_the_same_seed_keeps_the_same(pool: list[Question]) -> None:
    texts = [
        json.dumps([question_to_json(q) for q in balance(pool, np.random.default_rng(seed))])
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_a_constant_number_is_starved() -> None:
    rigged = [number(3)] * 300 + [number(value) for value in (1, 2, 4, 5, 6, 8, 10, 14) * 12]
    kept = balance(rigged, np.random.default_rng(0))
    assert blind_scores(rigged)["object_counting"][0] > 0.7
    assert blind_scores(kept)["object_counting"][0] <= 0.38
    assert len(kept) >= 80


def test_winning_words_are_starved_and_letters_dealt() -> None:
    rigged = [pick("left", "right", "back")] * 70 + [pick("back", "left", "right")] * 15
    rigged += [pick("right", "left", "back")] * 15
    kept = balance(rigged, np.random.default_rng(0))
    answers = Counter(question.answer_text for question in kept)
    assert max(answers.values()) - min(answers.values()) <= 2
    letters = Counter(question.ground_truth for question in kept)
    assert max(letters.values()) - min(letters.values()) <= 1


def test_moving_the_right_option() -> None:
    moved = pick("left", "right", "back", letter="C")
    assert moved.options == ("A. back", "B. right", "C. left")
    assert moved.answer_text == "left"


def test_the_words_of_a_nearest_question_follow_its_options(pool: list[Question]) -> None:
    for question in deal_letters([q for q in pool if q.question_type == "object_rel_distance"]):
        listed = question.question.split("(")[1].split(")")[0].split(", ")
        assert [option[3:] for option in question.options or ()] == listed


def test_the_package_offers_it() -> None:
    assert package_level is balance
