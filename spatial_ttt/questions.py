"""Reading a question off a stream, at the price of what it adds.

A question and its answer are a continuation whose length is known (see `model.state.brief`): it copies nothing of
the stream's state, sums up no gradients that nothing would write, and its last layer works for the last token only.

A TTT layer holds the last slot of an open video back, so that of n TTT layers the last is n slots behind. The end
of the video releases them all: the most of what a first question costs. `end_video` pays it once for many, and
`finish` reads the question with the last piece of a recording.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from spatial_ttt.model.layers import taken
from spatial_ttt.model.layout import END, Layout, join, num_tokens, text
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.state import DecoderState, brief
from spatial_ttt.model.vision import VisionTokens


class Piece(NamedTuple):
    """Tokens to push."""

    ids: Tensor  # [1, L]
    layout: Layout
    vision: VisionTokens | None = None


class Read(NamedTuple):
    """A continuation that has read its question."""

    hidden: Tensor  # [D] of the question's last token
    fork: DecoderState


def asked(ids: Tensor) -> Piece:
    """A question's ids [1, L] after the end of the video."""
    return Piece(ids, (END, text(ids.shape[1])))


@torch.no_grad()
def read_question(
    model: SpatialTTTForConditionalGeneration, state: DecoderState, piece: Piece, more: int
) -> Read:
    """Push the end of a stream, question included, on a continuation; `more` tokens may be pushed after it.

    The stream's own state stays as it is; where it is a view of a steady decoder, it must not be pushed on
    while the continuation is in use.
    """
    done, fork = _push(model, state, piece, more, wanted=1)
    return Read(done[0, -1], fork)


@torch.no_grad()
def finish(
    model: SpatialTTTForConditionalGeneration,
    state: DecoderState,
    piece: Piece | list[Piece],
    more: int,
) -> Read:
    """Push the last piece of a recording, its end and a question included; `more` tokens may be pushed after it.

    As `read_question`, but as the stream itself goes on, which is faster for a long piece. State and piece may be
    given away (see `layers.taken`).
    """
    ids, layout, seen = taken(piece)
    vision = [seen]
    del piece, seen
    done, last = model.decode_piece(ids, layout, vision.pop(), state, wanted=1)
    return Read(done.hidden[0, -1], brief(last, more))


@torch.no_grad()
def end_video(
    model: SpatialTTTForConditionalGeneration,
    state: DecoderState,
    more: int,
    last: Piece | None = None,
) -> DecoderState:
    """A continuation after the end of the video, for any number of questions; each and its answer
    have at most `more` tokens. A `last` piece comes before the end."""
    if last is None:
        last = Piece(torch.zeros(1, 0, dtype=torch.long, device=model.device), ())
    ending = last._replace(layout=join(last.layout, (END,)))
    return _push(model, state, ending, more, wanted=0)[1]


def _push(
    model: SpatialTTTForConditionalGeneration,
    state: DecoderState,
    piece: Piece,
    more: int,
    wanted: int,
) -> tuple[Tensor, DecoderState]:
    ids, layout, vision = piece
    hidden, deepstack = model.embed(ids, layout, vision)
    tokens, position = model.decoder.tokens(hidden, layout, state.position, deepstack)
    fork = brief(state._replace(position=position), num_tokens(layout) + more)
    # The decoder may let go of what a layer has read: it belongs to the stream, not to the fork.
    done, fork = model.decoder(tokens, fork.given_away(), wanted=wanted)
    return done.hidden, fork
