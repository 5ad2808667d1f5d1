"""A question off a stream: its first token, and the tokens after it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from spatial_ttt.bench.clock import seconds_of
from spatial_ttt.bench.ingest import Ingest
from spatial_ttt.bench.subject import WORD_ID
from spatial_ttt.generate import Decoding, generate
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.state import DecoderState
from spatial_ttt.questions import Read, asked, end_video, read_question


class Asking(NamedTuple):
    """Lengths in tokens."""

    question: int
    answer: int  # the first token included


def first_token(
    model: SpatialTTTForConditionalGeneration, ingest: Ingest, asking: Asking
) -> tuple[int, Read]:
    """End the video, read a question of so many tokens, choose the first token of the answer."""
    return _first(model, ingest.view, asking)


def _first(
    model: SpatialTTTForConditionalGeneration, state: DecoderState, asking: Asking
) -> tuple[int, Read]:
    read = read_question(model, state, asked(words(model, asking.question)), asking.answer)
    return choose(model, read), read


def choose(model: SpatialTTTForConditionalGeneration, read: Read) -> int:
    """The likeliest first token of the answer; waits for the device."""
    return int(model.lm_head(read.hidden).argmax())


def words(model: SpatialTTTForConditionalGeneration, count: int) -> Tensor:
    """Ids [1, count] of a question."""
    return torch.full((1, count), WORD_ID, device=model.device)


class Answered(NamedTuple):
    """Seconds of one question."""

    first_token: float
    rest: float  # from the first token of the answer to the last


def answer(model: SpatialTTTForConditionalGeneration, ingest: Ingest, asking: Asking) -> Answered:
    """Ask once; the answer is decoded greedily."""
    reads: list[Read] = []
    first = seconds_of(lambda: reads.append(first_token(model, ingest, asking)[1]), model.device)
    hidden, fork = reads.pop()

    def decode() -> None:
        for _ in generate(model, fork, hidden, Decoding(max_new_tokens=asking.answer)):
            pass

    return Answered(first, seconds_of(decode, model.device))


def first_tokens(
    model: SpatialTTTForConditionalGeneration, ingest: Ingest, asking: Asking, questions: int
) -> float:
    """Seconds to the first token of each of so many questions on one ingest; the video is ended once."""

    def ask_all() -> None:
        ended = end_video(model, ingest.view, asking.question + asking.answer)
        for _ in range(questions):
            _first(model, ended, asking)

    return seconds_of(ask_all, model.device)
