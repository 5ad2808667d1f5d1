"""A session's answers come through the model's engine and are those of plain decoding, whatever happens in between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import zip_longest
from typing import Any

import pytest

from spatial_ttt.errors import SessionClosed, SessionError, VideoError
from spatial_ttt.generate import Decoding
from spatial_ttt.model.answering import Answer
from spatial_ttt.model.bounded_cache import AnchorPolicy
from spatial_ttt.model.steady_answer import SteadyAnswer
from spatial_ttt.session import StreamingSession
from spatial_ttt.testing.small import small_model
from tests.model.streams import same_bits
from tests.scenery import frames, processor

LONG = Decoding(max_new_tokens=24)
QUESTIONS = ["How many?", "Where is it?", "What came first, and why?"]
BOUNDED = AnchorPolicy(sink_blocks=1, recent_blocks=2, older_blocks=2, block_tokens=16, bits=16)
MODELS = {size: small_model(chunk_size=size, window_size=size) for size in (40, 4000)}


@contextmanager
def without_engine() -> Iterator[None]:
    """Answers are decoded plainly meanwhile."""
    begin = Answer._begin
    Answer._begin = lambda self: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Answer._begin = begin  # type: ignore[method-assign]


@pytest.fixture
def steps(monkeypatch) -> list[int]:
    """Tokens that went through an engine."""
    tokens: list[int] = []
    step = SteadyAnswer.push
    monkeypatch.setattr(
        SteadyAnswer, "push", lambda self, token: tokens.append(token) or step(self, token)
    )
    return tokens


def watched(size: int, count: int, **options: Any) -> StreamingSession:
    made = StreamingSession(MODELS[size], processor(), slots_per_piece=1, **options)
    made.observe(frames(count))
    return made


def plain_answers(session: StreamingSession, decoding: Decoding = LONG) -> list[str]:
    with without_engine():
        return ["".join(session.ask(question, decoding)) for question in QUESTIONS]


@pytest.mark.parametrize("size", [40, 4000])
@pytest.mark.parametrize("count", [0, 1, 3, 20])
@pytest.mark.parametrize("steady", [False, True])
def test_one_by_one_and_all_at_once(size, count, steady, steps):
    session = watched(size, count, steady=steady)
    expected = plain_answers(session)
    assert not steps
    assert ["".join(session.ask(question, LONG)) for question in QUESTIONS] == expected
    assert steps
    assert ["".join(pieces) for pieces in session.ask_all(QUESTIONS, LONG)] == expected
    sampled = Decoding(max_new_tokens=12, temperature=1.0, seed=3)
    assert ["".join(session.ask(q, sampled)) for q in QUESTIONS] == plain_answers(session, sampled)


@pytest.mark.parametrize("size", [40, 4000])
@pytest.mark.parametrize("steady", [False, True])
def test_answers_token_by_token_in_turn_while_frames_come(size, steady, steps):
    session, quiet = watched(size, 20, steady=steady), watched(size, 20)
    expected = plain_answers(quiet)
    answers = [session.ask(QUESTIONS[0], LONG), *session.ask_all(QUESTIONS[1:], LONG)]
    said, start = ["", "", ""], 20
    for row in zip_longest(*answers, fillvalue=""):
        said = [before + piece for before, piece in zip(said, row, strict=True)]
        if start < 40:
            for each in (session, quiet):
                each.observe(frames(2, start=start))
            start += 2
    assert said == expected and steps
    assert plain_answers(session) == plain_answers(quiet)
    if not steady:
        assert same_bits(session.state, quiet.state)


def test_an_answer_that_is_dropped_leaves_the_engine_to_the_next(steps):
    session = watched(4000, 20)
    expected = plain_answers(session)
    dropped = session.ask(QUESTIONS[0], LONG)
    next(dropped), next(dropped)
    held = "".join(session.ask(QUESTIONS[1], LONG))
    assert held == expected[1] and len(steps) < 24, "the engine was taken"
    dropped.close()
    steps.clear()
    assert "".join(session.ask(QUESTIONS[1], LONG)) == expected[1] and len(steps) >= 8
    kept = session.ask(QUESTIONS[2], LONG)
    next(kept)
    del kept  # nobody reads it any more
    steps.clear()
    assert "".join(session.ask(QUESTIONS[1], LONG)) == expected[1] and len(steps) >= 8


@pytest.mark.parametrize("bits", [16, 8])
def test_bounded_anchors(bits, steps):
    session = watched(4000, 40, anchors=BOUNDED._replace(bits=bits))
    expected = plain_answers(session)
    assert ["".join(pieces) for pieces in session.ask_all(QUESTIONS, LONG)] == expected and steps


def test_forks_share_the_engine(steps):
    session = watched(4000, 20)
    twin = session.fork()
    twin.observe(frames(6, start=100))
    expected = plain_answers(session), plain_answers(twin)
    first, second = session.ask(QUESTIONS[0], LONG), twin.ask(QUESTIONS[0], LONG)
    begun = next(first), next(second)
    session.observe(frames(6, start=20))
    assert begun[0] + "".join(first) == expected[0][0]
    assert begun[1] + "".join(second) == expected[1][0]
    session.close()
    assert ["".join(twin.ask(q, LONG)) for q in QUESTIONS] == expected[1] and steps


def test_a_stop_costs_no_step(steps):
    session = watched(4000, 20)
    list(session.ask(QUESTIONS[0], LONG))
    tokens = steps.copy()
    steps.clear()
    list(session.ask(QUESTIONS[0], Decoding(max_new_tokens=24, stop_ids=(tokens[5],))))
    assert steps == tokens[: tokens.index(tokens[5])]


@pytest.mark.parametrize("slots_per_piece", [1, 2, 7])
@pytest.mark.parametrize("count", [0, 1, 3, 8, 21])
@pytest.mark.parametrize("before", [0, 5])
def test_the_only_question_about_a_recording(slots_per_piece, count, before):
    """Read with the last piece it is answered as after it, whatever was watched before and however pieces lie."""
    for size, model in MODELS.items():
        made = StreamingSession(model, processor(), slots_per_piece=slots_per_piece)
        made.observe(frames(before))
        expected = plain_answers(watched(size, before + count))[0]
        answer = made.finish(iter(frames(count, start=before)), QUESTIONS[0], LONG)
        stats = made.stats()
        assert (stats.num_frames, stats.num_slots) == (before + count, (before + count) // 2)
        assert "".join(answer) == expected
        for refused in (partial(made.ask, "More?"), partial(made.observe, ()), made.fork):
            with pytest.raises(SessionClosed, match="recording is over"):
                refused()
        made.close()


@pytest.mark.parametrize("options", [{"steady": True}, {"max_bytes": 10**9}, {"anchors": BOUNDED}])
def test_the_only_question_in_other_sessions(options):
    anchors = {"anchors": options.get("anchors")}
    expected = plain_answers(watched(40, 21, **anchors))[0]
    made = watched(40, 4, **options)
    assert "".join(made.finish(frames(17, start=4), QUESTIONS[0], LONG)) == expected


def test_frames_that_are_refused_do_not_end_a_recording():
    bad = [*frames(6, start=4), frames(1)[0]]
    for most in (1, 8):
        made = watched(40, 4)
        made.slots_per_piece = most
        with pytest.raises(VideoError, match="must not go backwards"):
            made.finish(bad, QUESTIONS[0], LONG)
        seen = made.stats().num_frames
        assert 4 <= seen <= 10
        assert plain_answers(made) == plain_answers(watched(40, seen))
    with pytest.raises(SessionError, match="empty"):
        made.finish([], " ")
    assert "".join(made.finish([], QUESTIONS[0], LONG)) == plain_answers(watched(40, seen))[0]


def test_a_recording_is_finished_from_one_place():
    made = watched(40, 4)

    def greedy():
        with pytest.raises(SessionError, match="one place at a time"):
            made.finish(frames(2, start=20), QUESTIONS[1], LONG)
        yield from frames(6, start=4)

    answer = "".join(made.finish(greedy(), QUESTIONS[0], LONG))
    assert answer == plain_answers(watched(40, 10))[0]
