"""The probe during training scores as the evaluation does, and asks as a session does."""

from __future__ import annotations

import numpy as np
import pytest

from spatial_ttt.eval.metrics import mean_relative_accuracy, score_reply
from spatial_ttt.generate import Decoding
from spatial_ttt.loading import small_model_frames
from spatial_ttt.processor import Processor
from spatial_ttt.scenes.questions.question import CHOICE_TYPES, NUMBER_TYPES
from spatial_ttt.session import StreamingSession
from spatial_ttt.train.clip_text import blind_prefix
from spatial_ttt.train.clip_types import KINDS
from spatial_ttt.train.probe import ANSWER_TOKENS, ASKED, Reply, answer_ring, score, table
from spatial_ttt.video import Frame
from tests.train import clips

REPLIES = (
    "2",
    "1.9",
    "2.",
    "2 m",
    " 2",
    "two",
    "",
    "nan",
    "inf",
    "-2",
    "1",
    "3.05",
    "A",
    "A.",
    "b",
    "AB",
    " A",
)


@pytest.mark.parametrize("reply", REPLIES)
def test_scores_are_the_evaluations(reply: str) -> None:
    for kind in (*NUMBER_TYPES, "vsc"):
        for truth in ("2", "1.9", "0"):
            assert score(kind, reply, truth) == score_reply(reply, truth, "number").official
    for kind in (*CHOICE_TYPES, "vsr"):
        assert score(kind, reply, "A") == score_reply(reply, "A", "choice").official


def test_numbers_at_a_threshold_count_as_they_do_in_the_evaluation() -> None:
    for tenth in range(1, 30):
        value = tenth / 10
        assert score("room_size_estimation", str(value), "2") == mean_relative_accuracy(value, 2.0)


def test_the_table_has_means_and_the_best_constant_answer() -> None:
    replies = [
        Reply("route_planning", said, truth, 0, "")
        for said, truth in (("A", "A"), ("B", "A"), ("B", "C"))
    ]
    counts = [
        Reply("object_counting", said, truth, 0, "")
        for said, truth in (("2", "2"), ("2", "4"), ("1", "4"))
    ]
    found = table([*replies, *counts])
    assert list(found) == ["object_counting", "route_planning"]
    assert found["route_planning"] == pytest.approx((1 / 3, 2 / 3, 3))
    constant = max(np.mean(mean_relative_accuracy(g, [2.0, 4.0, 4.0])) for g in (2.0, 4.0))
    half = float(mean_relative_accuracy(2.0, 4.0))
    assert found["object_counting"] == pytest.approx(((1 + half) / 3, constant, 3))


@pytest.fixture(scope="module")
def model():
    return clips.model(seed=1)


def test_held_out_clips_are_asked_their_questions_once_with_their_truths(model) -> None:
    ring = clips.ring()
    replies = answer_ring(model.train(), clips.tokenizer(), ring, clips.prefix(), branches=64)
    expected = []
    for place in ring.ready:
        exchanges = ring.records[place].exchanges
        rows = {
            (KINDS[k], ids.tobytes(), t)
            for k, ids, t in zip(exchanges.kind, exchanges.ids, exchanges.truth, strict=True)
        }
        expected += [(kind, truth) for kind, _, truth in rows if kind in ASKED]
    assert sorted((reply.kind, reply.truth) for reply in replies) == sorted(expected)
    assert len(replies) >= 8
    assert model.training is True  # as it was


def test_replies_do_not_depend_on_their_company(model) -> None:
    """The same replies clip by clip as together, whatever other branches are read beside them."""
    ring, told = clips.ring(), clips.prefix()
    together = answer_ring(model, clips.tokenizer(), ring, told, clips=2, branches=6)
    alone = answer_ring(model, clips.tokenizer(), ring, told, clips=1, branches=6)
    assert together == alone
    assert {reply.reply for reply in together} != {""}


def test_replies_are_those_of_a_session(model) -> None:
    """Frames of a clip pushed through a session, the question asked there: the same words come out."""
    ring = clips.ring()
    place = ring.ready[0]
    exchanges = ring.records[place].exchanges
    processor = Processor(clips.tokenizer(), small_model_frames((32, 64)))
    session = StreamingSession(model.eval(), processor)
    times = clips.SPEC.times
    session.observe(
        Frame(f.numpy(), float(t)) for f, t in zip(ring.frames[place], times, strict=True)
    )
    replies = answer_ring(model, clips.tokenizer(), ring, clips.prefix(), branches=64)
    found = {(reply.kind, reply.truth, reply.reply) for reply in replies}
    asked = 0
    for n, kind in enumerate(exchanges.kind):
        if KINDS[kind] in ASKED:
            prompt = clips.tokenizer().decode(exchanges.ids[n, : exchanges.start[n]].tolist())
            question = prompt.partition("<|im_end|>")[0]
            said = "".join(session.ask(question, Decoding(max_new_tokens=ANSWER_TOKENS)))
            assert (KINDS[kind], exchanges.truth[n], said) in found
            asked += 1
    assert asked >= 1


def test_without_the_video_replies_do_not_depend_on_it(model) -> None:
    ring, told = clips.ring(), blind_prefix(clips.tokenizer())
    before = answer_ring(model, clips.tokenizer(), ring, told, branches=4, blind=True)
    frames = ring.frames.clone()
    ring.frames.zero_()
    try:
        assert answer_ring(model, clips.tokenizer(), ring, told, branches=4, blind=True) == before
    finally:
        ring.frames.copy_(frames)
