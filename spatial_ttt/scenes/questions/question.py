"""What a question is: its type, words, options, answer, and the moment it may be asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.fields import mapping, number, required, text

LETTERS = "ABCDEFGH"

NUMBER_TYPES = (
    "object_counting",
    "object_abs_distance",
    "object_size_estimation",
    "room_size_estimation",
)
CHOICE_TYPES = (
    "object_rel_distance",
    "object_rel_direction_easy",
    "object_rel_direction_medium",
    "object_rel_direction_hard",
    "obj_appearance_order",
    "route_planning",
)
QUESTION_TYPES = NUMBER_TYPES + CHOICE_TYPES
"""VSI-Bench's types, in its own names."""
STREAM_TYPES = ("vsr", "vsc")
"""Types asked of long streams: recall of an unusual object, counting over chained rooms."""

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """One question about what was seen until `visible_until_s`.

    `ground_truth` is a number as text, or the letter of the right option; options read "A. chair".
    `facts` say what the question is about: categories, object ids, raw values. `query_times` and
    `query_answers` are set on streaming questions: the answer, as text, at each time in seconds.
    """

    question_type: str
    question: str
    options: tuple[str, ...] | None
    ground_truth: str
    scene_id: str
    visible_until_s: float
    facts: Facts = field(default_factory=dict)
    query_times: tuple[float, ...] = ()
    query_answers: tuple[str, ...] = ()

    @property
    def answer_text(self) -> str:
        """The answer in words: the right option's text, or the number."""
        if self.options is None:
            return self.ground_truth
        return option_text(self.options[LETTERS.index(self.ground_truth)])


def lettered(texts: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """Options as the benchmark writes them: "A. chair", "B. table"."""
    return tuple(f"{letter}. {item}" for letter, item in zip(LETTERS, texts, strict=False))


def option_text(option: str) -> str:
    """The words of an option without its letter."""
    return option.split(". ", 1)[1]


def question_to_json(question: Question) -> dict[str, Any]:
    """A question as plain JSON values; query fields only where they are set."""
    record: dict[str, Any] = {
        "scene_id": question.scene_id,
        "question_type": question.question_type,
        "question": question.question,
        "options": None if question.options is None else list(question.options),
        "ground_truth": question.ground_truth,
        "visible_until_s": question.visible_until_s,
        "facts": question.facts,
    }
    if question.query_times:
        record["query_times"] = list(question.query_times)
        record["query_answers"] = list(question.query_answers)
    return record


def question_from_json(record: Any) -> Question:
    """A question from what `question_to_json` wrote."""
    record = mapping(record, "question")
    options = record.get("options")
    question = Question(
        question_type=text(required(record, "question_type", "question"), "question_type"),
        question=text(required(record, "question", "question"), "question"),
        options=None if options is None else tuple(str(option) for option in options),
        ground_truth=text(required(record, "ground_truth", "question"), "ground_truth"),
        scene_id=text(required(record, "scene_id", "question"), "scene_id"),
        visible_until_s=number(
            required(record, "visible_until_s", "question"), "question: visible_until_s"
        ),
        facts=mapping(record.get("facts", {}), "question: facts"),
        query_times=tuple(record.get("query_times", ())),
        query_answers=tuple(record.get("query_answers", ())),
    )
    if question.question_type not in QUESTION_TYPES + STREAM_TYPES:
        raise SceneError(
            f"question_type is {question.question_type!r}, expected one of "
            f"{QUESTION_TYPES + STREAM_TYPES}"
        )
    if question.options and question.ground_truth not in LETTERS[: len(question.options)]:
        raise SceneError(
            f"ground_truth is {question.ground_truth!r}, expected a letter of {question.options}"
        )
    return question
