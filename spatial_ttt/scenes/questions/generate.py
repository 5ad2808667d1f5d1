"""Every generator by its type, and the mix of questions a clip gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from numpy.random import Generator

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.questions import appearance, choices, numbers, routes
from spatial_ttt.scenes.questions.question import QUESTION_TYPES, Question
from spatial_ttt.scenes.questions.seen import Observation

QuestionGenerator = Callable[[Observation, Generator, int], list[Question]]

GENERATORS: dict[str, QuestionGenerator] = {
    "object_counting": numbers.object_counting,
    "object_abs_distance": numbers.object_abs_distance,
    "object_size_estimation": numbers.object_size_estimation,
    "room_size_estimation": numbers.room_size_estimation,
    "object_rel_distance": choices.object_rel_distance,
    "object_rel_direction_easy": choices.object_rel_direction_easy,
    "object_rel_direction_medium": choices.object_rel_direction_medium,
    "object_rel_direction_hard": choices.object_rel_direction_hard,
    "obj_appearance_order": appearance.obj_appearance_order,
    "route_planning": routes.route_planning,
}
"""The ten types; each generator gives up to so many questions, fewer if fewer are certain."""


def generate(
    seen: Observation, rng: Generator, limits: int | Mapping[str, int] = 2
) -> list[Question]:
    """Up to `limits` questions of every type (one number for all, or a number per type)."""
    wanted = dict.fromkeys(QUESTION_TYPES, limits) if isinstance(limits, int) else dict(limits)
    unknown = sorted(set(wanted) - set(GENERATORS))
    if unknown:
        raise SceneError(f"unknown question types {unknown}; known are {sorted(GENERATORS)}")
    return [
        question
        for kind, generator in GENERATORS.items()
        for question in generator(seen, rng, wanted.get(kind, 0))
    ]


def sample(
    seen: Observation,
    rng: Generator,
    total: int,
    types: Sequence[str] = QUESTION_TYPES,
) -> list[Question]:
    """Up to `total` questions in random order, all types alike as far as the scene allows."""
    each = -(-2 * total // max(len(types), 1))  # twice the share: some types will have none
    pool = generate(seen, rng, dict.fromkeys(types, each))
    by_type: dict[str, list[Question]] = {}
    for question in pool:
        by_type.setdefault(question.question_type, []).append(question)
    kinds = list(by_type)
    kinds = [kinds[n] for n in rng.permutation(len(kinds))]
    turns = max((len(group) for group in by_type.values()), default=0)
    dealt = [by_type[kind][n] for n in range(turns) for kind in kinds if n < len(by_type[kind])]
    chosen = dealt[:total]
    return [chosen[n] for n in rng.permutation(len(chosen))]
