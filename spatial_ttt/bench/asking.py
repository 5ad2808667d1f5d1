"""A question on a fork of a stream: its first token, and the tokens after it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from spatial_ttt.bench.clock import seconds_of
from spatial_ttt.bench.ingest import Ingest
from spatial_ttt.bench.subject import WORD_ID
from spatial_ttt.generate import Decoding, generate
from spatial_ttt.model.kv_cache import KVCache, release
from spatial_ttt.model.layout import END, text
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.state import DecoderState


class Asked(NamedTuple):
    """A fork that has read its question."""

    hidden: Tensor  # [D] of the question's last token
    fork: DecoderState
    stream: DecoderState  # what it was forked from


def first_token(
    model: SpatialTTTForConditionalGeneration, ingest: Ingest, question_tokens: int
) -> Asked:
    """End the video on a fork, read a question of so many tokens, choose the first token of the answer."""
    stream = ingest.state
    ids = torch.full((1, question_tokens), WORD_ID, device=model.device)
    done, fork = model.decode_piece(ids, (END, text(question_tokens)), None, stream)
    model.lm_head(done.hidden[:, -1]).argmax(-1).item()
    return Asked(done.hidden[0, -1], fork, stream)


def give_back(asked: Asked) -> None:
    """Drop a fork, so that the stream may append in place again."""
    for ours, theirs in zip(asked.fork.layers, asked.stream.layers, strict=True):
        if isinstance(ours, KVCache):
            release(ours, theirs if isinstance(theirs, KVCache) else None)


class Answered(NamedTuple):
    """Seconds of one question."""

    first_token: float
    rest: float  # from the first token of the answer to the last


def answer(
    model: SpatialTTTForConditionalGeneration,
    ingest: Ingest,
    question_tokens: int,
    answer_tokens: int,
) -> Answered:
    """Ask once on a fork; `answer_tokens` are decoded greedily, the first included."""
    asked: list[Asked] = []
    first = seconds_of(
        lambda: asked.append(first_token(model, ingest, question_tokens)), model.device
    )
    last = asked[0]

    def decode() -> None:
        nonlocal last
        decoding = Decoding(max_new_tokens=answer_tokens)
        for _, state in generate(model, asked[0].fork, asked[0].hidden, decoding):
            last = last._replace(fork=state)

    rest = seconds_of(decode, model.device)
    give_back(last)
    return Answered(first, rest)
