"""The question types of VSI-Bench, in the order every table of the field prints them."""

from __future__ import annotations

from typing import Literal

AnswerKind = Literal["number", "choice", "mindcube_choice"]
"""How a reply is read: as a number, as an option's letter, or as MindCube reads its letters."""

NUMBER_TYPES = (
    "object_counting",
    "object_abs_distance",
    "object_size_estimation",
    "room_size_estimation",
)
DIRECTION = "object_rel_direction"
DIRECTION_SUBTYPES = (
    "object_rel_direction_easy",
    "object_rel_direction_medium",
    "object_rel_direction_hard",
)
CHOICE_TYPES = (
    "object_rel_distance",
    *DIRECTION_SUBTYPES,
    "route_planning",
    "obj_appearance_order",
)
VSI_BENCH_TYPES = (
    *NUMBER_TYPES,
    "object_rel_distance",
    DIRECTION,
    "route_planning",
    "obj_appearance_order",
)
"""The eight reported types; `object_rel_direction` is the mean of its three sub-types."""


def answer_kind(question_type: str) -> AnswerKind | None:
    """How replies to a VSI-Bench type are scored; None for a type VSI-Bench does not know."""
    if question_type in NUMBER_TYPES:
        return "number"
    if question_type in CHOICE_TYPES:
        return "choice"
    return None
