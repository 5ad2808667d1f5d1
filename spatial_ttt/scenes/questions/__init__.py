"""Spatial questions with certain answers, about what a camera saw.

`observe` (or `observe_all` for scans) says what was seen; `generate` or `sample` asks, `generate_fair`
with fewer answers that the words give away; `balance` takes from a pool what a blind viewer cannot
guess. Streams: `stream_counting`, `stream_recall`.
"""

from spatial_ttt.scenes.questions.balance import balance, blind_scores
from spatial_ttt.scenes.questions.fair import generate_fair
from spatial_ttt.scenes.questions.generate import GENERATORS, generate, sample
from spatial_ttt.scenes.questions.question import (
    CHOICE_TYPES,
    NUMBER_TYPES,
    QUESTION_TYPES,
    STREAM_TYPES,
    Question,
    question_from_json,
    question_to_json,
)
from spatial_ttt.scenes.questions.seen import Observation, SeenRule, observe, observe_all
from spatial_ttt.scenes.questions.streams import Segment, stream_counting, stream_recall

__all__ = [
    "CHOICE_TYPES",
    "GENERATORS",
    "NUMBER_TYPES",
    "QUESTION_TYPES",
    "STREAM_TYPES",
    "Observation",
    "Question",
    "SeenRule",
    "Segment",
    "balance",
    "blind_scores",
    "generate",
    "generate_fair",
    "observe",
    "observe_all",
    "question_from_json",
    "question_to_json",
    "sample",
    "stream_counting",
    "stream_recall",
]
