"""Questions as JSON, and the words of their answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.questions.question import (
    Question,
    lettered,
    option_text,
    question_from_json,
    question_to_json,
)

CHOICE = Question(
    "object_rel_distance", "Which?", ("A. bed", "B. a. b"), "B", "s", 3.5, {"categories": ["x"]}
)
STREAM = Question("vsc", "How many?", None, "7", "s", 60.0, {}, (30.0, 60.0), ("4", "7"))


@pytest.mark.parametrize("question", [CHOICE, STREAM])
def test_round_trip(question: Question) -> None:
    record = json.loads(json.dumps(question_to_json(question)))
    assert question_from_json(record) == question


def test_only_streaming_questions_have_query_fields() -> None:
    assert "query_times" not in question_to_json(CHOICE)
    assert question_to_json(STREAM)["query_answers"] == ["4", "7"]


def test_answers_in_words() -> None:
    assert CHOICE.answer_text == "a. b"
    assert STREAM.answer_text == "7"
    assert lettered(["x", "y"]) == ("A. x", "B. y")
    assert option_text("C. back-left") == "back-left"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("question_type", "colour", "expected one of"),
        ("ground_truth", "C", "expected a letter of"),
        ("visible_until_s", "soon", "visible_until_s"),
        ("facts", [], "expected a JSON object"),
        ("scene_id", None, "non-empty text"),
    ],
)
def test_wrong_records_are_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(SceneError, match=message):
        question_from_json({**question_to_json(CHOICE), field: value})
