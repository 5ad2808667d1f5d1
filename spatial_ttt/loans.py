"""What answers under way hold of a stream that goes on."""

from __future__ import annotations

from collections.abc import Iterable

from spatial_ttt.errors import SessionError
from spatial_ttt.model.kv_cache import KVCache, release
from spatial_ttt.model.state import DecoderState, moved_out
from spatial_ttt.stream_state import StreamState


class Loan:
    """A state that an answer reads on; of a steady session it may be a view until the next piece comes."""

    def __init__(self, stream: StreamState, ended: DecoderState | None = None) -> None:
        self.stream = stream
        self.fork = stream.decoder if ended is None else ended
        self.has_ended = ended is not None  # the fork is past the end of the video


def keep(loans: Iterable[Loan], places: set[int]) -> None:
    """Copy what loans hold in memory that begins at `places`, before it is written over."""
    for loan in loans:
        layers = tuple(moved_out(layer, places) for layer in loan.fork.layers)
        loan.fork = loan.fork._replace(layers=layers)


def give_back(fork: DecoderState, parent: DecoderState) -> None:
    """Let the parent append in place again where a dropped fork did."""
    for ours, theirs in zip(fork.layers, parent.layers, strict=True):
        if isinstance(ours, KVCache):
            release(ours, theirs if isinstance(theirs, KVCache) else None)


def check_question(question: str) -> None:
    """Raise SessionError for a question that asks nothing."""
    if not question.strip():
        raise SessionError("the question is empty; ask something")
