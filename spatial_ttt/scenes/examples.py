"""Training samples from descriptions and questions: the words around them and the fields beside.

A pool line (one scene's description and questions) is written per scene; `samples_of` turns the
lines of a whole split into samples, balanced so that a viewer who does not look gains nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spatial_ttt.data_format import MARKERS, Sample, Turn
from spatial_ttt.scenes.questions.balance import balance
from spatial_ttt.scenes.questions.question import (
    Question,
    question_from_json,
    question_to_json,
)

NUMBER_REQUEST = "Please answer the question using a single word or phrase."
CHOICE_REQUEST = "Answer with the option's letter from the given choices directly."
"""The benchmark's own requests, as the `paper` prompt profile words them."""
DESCRIPTION_TYPE = "scene_description"
"""`question_type` of stage 1 samples."""
DESCRIPTION_REQUESTS = (
    "Describe the scene in this video: what kind of place it is, which objects there are and how "
    "many, and how they are laid out.",
    "Walk me through this video. Which rooms and objects does it show, how many of each, and where "
    "do they stand?",
    "Give a dense description of the scene: its function, every category of object with its exact "
    "count, the layout and how objects relate to each other.",
    "What does the camera see on its way? Describe the place, count its objects and tell how they "
    "are arranged.",
)


@dataclass(frozen=True, slots=True)
class PoolLine:
    """All texts about one video, before balancing."""

    key: str  # of the scene in its shard
    video: str  # path from the examples file
    until_s: float | None  # s, the video's last frame; None: unknown, all of it was seen
    description: str | None
    questions: tuple[Question, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON; `pool_line_from_json` reads it back."""
        return {
            "key": self.key,
            "video": self.video,
            "until_s": self.until_s,
            "description": self.description,
            "questions": [question_to_json(question) for question in self.questions],
        }


def pool_line_from_json(record: dict[str, Any]) -> PoolLine:
    """A pool line from what `PoolLine.to_json` wrote."""
    questions = tuple(question_from_json(item) for item in record["questions"])
    return PoolLine(
        record["key"], record["video"], record["until_s"], record["description"], questions
    )


def samples_of(lines: Sequence[PoolLine], seed: int) -> Iterator[Sample]:
    """Samples of a whole split in the order of its scenes, questions balanced over all of it."""
    pool = [question for line in lines for question in line.questions]
    kept = _by_scene(balance(pool, np.random.Generator(np.random.PCG64(seed))))
    for line in lines:
        if line.description is not None:
            yield description_sample(line, line.description, seed)
        scene_id = line.questions[0].scene_id if line.questions else ""
        for number, question in enumerate(kept.get(scene_id, ())):
            until_s = None if line.until_s is None else question.visible_until_s
            yield question_sample(question, line.video, f"{line.key}-q{number:03d}", until_s)


def _by_scene(questions: Sequence[Question]) -> dict[str, list[Question]]:
    grouped: dict[str, list[Question]] = {}
    for question in questions:
        grouped.setdefault(question.scene_id, []).append(question)
    return grouped


def description_sample(line: PoolLine, description: str, seed: int) -> Sample:
    """A stage 1 sample: describe the whole video."""
    draw = np.random.Generator(np.random.PCG64([seed, *line.key.encode()]))
    request = DESCRIPTION_REQUESTS[int(draw.integers(len(DESCRIPTION_REQUESTS)))]
    return Sample(
        turns=(Turn("human", f"{MARKERS['video']}\n{request}"), Turn("gpt", description)),
        videos=(line.video,),
        id=f"{line.key}-description",
        question_type=DESCRIPTION_TYPE,
        visible_until_s=line.until_s,
    )


def question_sample(
    question: Question, video: str, sample_id: str, until_s: float | None
) -> Sample:
    """A stage 2 sample: one question, answered with a letter or a number."""
    request = NUMBER_REQUEST
    if question.options is not None:
        request = "Options:\n" + "\n".join(question.options) + f"\n{CHOICE_REQUEST}"
    extra: dict[str, Any] = {"scene_id": question.scene_id}
    if question.query_times:
        extra |= {
            "query_times": list(question.query_times),
            "query_answers": list(question.query_answers),
        }
    return Sample(
        turns=(
            Turn("human", f"{MARKERS['video']}\n{question.question}\n{request}"),
            Turn("gpt", question.ground_truth),
        ),
        videos=(video,),
        id=sample_id,
        question_type=question.question_type,
        options=question.options,
        ground_truth=question.ground_truth,
        visible_until_s=until_s,
        extra=extra,
    )
