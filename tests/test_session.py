"""A session: what it answers is what the whole model says offline, and asking changes nothing."""

from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest
import torch

from spatial_ttt.errors import BudgetError, SessionClosed, SessionError, VideoError
from spatial_ttt.generate import Decoding
from spatial_ttt.model.bounded_cache import AnchorPolicy
from spatial_ttt.model.budget import state_budget
from spatial_ttt.model.layout import END, text
from spatial_ttt.session import StreamingSession
from spatial_ttt.video import Frame
from tests.model.streams import relative, same_bits
from tests.scenery import SHORT, answer, frames, model, processor, session

QUESTION = "How many chairs are there?"


def offline(
    watched: list[Frame], question: str, own=None
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Token ids and pixels of everything seen and one question, as one prompt."""
    p, ids, pairs = processor(), list(processor().prefix_ids), []
    if len(watched) % 2:
        watched = [*watched, watched[-1]]
    for first, second in zip(watched[::2], watched[1::2], strict=True):
        ids += p.slot_ids((first.time + second.time) / 2, (2, 3))[0]
        pairs += [first.pixels, second.pixels]
    ids += p.question_ids(question)
    pixels = {}
    if pairs:
        patches, grid = p.patches(torch.from_numpy(np.stack(pairs)))
        pixels = {
            "pixel_values_videos": patches.flatten(0, 1),
            "video_grid_thw": torch.tensor([[len(patches), *grid]]),
        }
    return torch.tensor([ids]), pixels


def question_logits(watched: StreamingSession, question: str = QUESTION) -> torch.Tensor:
    """Logits at the question's tokens, on a fork."""
    ids = torch.tensor([processor().question_ids(question)])
    with torch.no_grad():
        done, _ = model().decode_piece(ids, (END, text(ids.shape[1])), None, watched.state.decoder)
        return model().lm_head(done.hidden[:, -ids.shape[1] :])


@pytest.mark.parametrize("count", [0, 1, 2, 7, 12])
@pytest.mark.parametrize("slots_per_piece", [1, 4])
@torch.no_grad()
def test_the_answer_is_the_whole_models(count, slots_per_piece):
    watched = session(slots_per_piece=slots_per_piece)
    watched.observe(frames(count))
    ids, pixels = offline(frames(count), QUESTION)
    said = [
        processor().encode(answer(watched, QUESTION, Decoding(max_new_tokens=n))) for n in (1, 8)
    ]
    expected = []
    for _ in range(8):
        expected.append(int(model()(ids, **pixels).logits[0, -1].argmax()))
        if expected[-1] == processor().stop_id:
            break
        ids = torch.cat((ids, torch.tensor([[expected[-1]]])), dim=1)
    assert said[1] == processor().encode(processor().decode(expected))
    assert said[0] == processor().encode(processor().decode(expected[:1]))


@pytest.mark.parametrize("count", [2, 12])
@torch.no_grad()
def test_logits_are_the_whole_models(count):
    watched = session()
    watched.observe(frames(count))
    ids, pixels = offline(frames(count), QUESTION)
    got = question_logits(watched)
    assert relative(got, model()(ids, **pixels).logits[:, -got.shape[1] :]) <= 5e-4


def test_any_grouping_of_frames_gives_the_same_state():
    whole = session()
    assert whole.observe(frames(11)) == 5
    for slots_per_piece, borders in ((1, [0, 11]), (3, [0, 1, 2, 3, 8, 11]), (8, [0, 5, 6, 11])):
        other = session(slots_per_piece=slots_per_piece)
        for start, stop in pairwise(borders):
            other.observe(frames(stop - start, start=start))
        assert other.stats().num_slots == 5 and other.stats().num_frames == 11
        assert relative(question_logits(other), question_logits(whole)) <= 5e-4
        assert answer(other) == answer(whole)


def test_asking_leaves_the_stream_bit_identical():
    asked, quiet = session(), session()
    for start in range(0, 24, 3):
        asked.observe(frames(3, start=start))
        quiet.observe(frames(3, start=start))
        before = asked.state
        first = answer(asked)
        assert answer(asked) == first, "asked twice, answered twice the same"
        assert asked.state is before
    assert same_bits(asked.state, quiet.state)
    assert answer(asked) == answer(quiet)


def test_twenty_questions_on_one_ingest():
    watched = session()
    watched.observe(frames(10))
    before = watched.state
    questions = [f"What is number {n}?" for n in range(20)]
    answers = [answer(watched, q) for q in questions]
    assert watched.state is before and watched.stats().num_slots == 5
    for question, said in list(zip(questions, answers, strict=True))[::7]:
        alone = session()
        alone.observe(frames(10))
        assert answer(alone, question) == said
    assert len(set(answers)) > 3


@pytest.mark.parametrize("count", [0, 1, 10, 13])
def test_many_questions_at_once_are_answered_as_one_by_one(count):
    watched = session()
    watched.observe(frames(count))
    before = watched.state
    questions = [f"What is number {n}, and why?" for n in (1, 20, 300)]
    answers = ["".join(pieces) for pieces in watched.ask_all(questions, SHORT)]
    assert answers == [answer(watched, q) for q in questions]
    assert watched.state is before and watched.ask_all([]) == []
    with pytest.raises(SessionError, match="ask something"):
        watched.ask_all(["How many?", " "])


def has_room(watched: StreamingSession, tokens: int) -> bool:
    """The anchor's buffer could take more tokens in place, so that forks really share it."""
    cache = watched.state.decoder.layers[-1]
    return cache.keys.shape[2] >= cache.tail + tokens


def test_an_answer_is_as_of_the_question_while_frames_keep_coming():
    watched, quiet = session(slots_per_piece=1), session(slots_per_piece=1)
    watched.observe(frames(16))
    quiet.observe(frames(16))
    assert has_room(watched, 60)
    expected = answer(quiet, QUESTION, Decoding(max_new_tokens=12))
    pieces, start = [], 16
    for piece in watched.ask(QUESTION, Decoding(max_new_tokens=12)):
        pieces.append(piece)
        watched.observe(frames(2, start=start))
        quiet.observe(frames(2, start=start))
        start += 2
    assert "".join(pieces) == expected and len(pieces) > 1
    assert same_bits(watched.state, quiet.state)


def test_a_question_may_be_read_late_or_not_at_all():
    watched = session()
    watched.observe(frames(6))
    expected = answer(watched)
    late, never = watched.ask("How many?", SHORT), watched.ask("How many?", SHORT)
    next(never)
    watched.observe(frames(6, start=6))
    assert "".join(late) == expected
    never.close()
    quiet = session()
    quiet.observe(frames(12))
    assert relative(question_logits(watched), question_logits(quiet)) <= 5e-4


def test_questions_from_another_thread_while_frames_come():
    """Each answer is that of some moment of the stream, and the stream never notices."""
    quiet, expected = session(slots_per_piece=2), set()
    for start in range(0, 40, 4):
        quiet.observe(frames(4, start=start))
        expected.add(answer(quiet))
    watched = session(slots_per_piece=2)
    watched.observe(frames(4))
    failures: list[BaseException] = []

    def watch() -> None:
        try:
            watched.observe(frames(36, start=4))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=watch)
    thread.start()
    answers = [answer(watched)]
    while thread.is_alive():
        answers.append(answer(watched))
    thread.join()
    assert not failures and set(answers) <= expected
    assert same_bits(watched.state, quiet.state)


def test_a_question_inside_observe_sees_whole_pieces_only():
    """The frames of an unfinished piece are not seen yet, not even the odd last one."""
    watched, quiet, answers = session(slots_per_piece=4), session(), []

    def asking():
        for number, frame in enumerate(frames(13)):
            if number == 11:  # 8 frames were watched, 3 more came
                answers.append(answer(watched))
                assert watched.stats().num_frames == 8 and watched.state.lone is None
            yield frame

    watched.observe(asking())
    quiet.observe(frames(8))
    assert answers == [answer(quiet)]
    assert watched.stats().num_frames == 13 and watched.state.lone is not None


def test_one_observer_at_a_time():
    watched = session()

    def nested():
        yield frames(1)[0]
        watched.observe(frames(1, start=1))

    with pytest.raises(SessionError, match="watched already"):
        watched.observe(nested())
    assert watched.stats().num_frames == 1
    watched.observe(frames(2, start=1))
    assert watched.stats().num_frames == 3


def test_forks_are_independent():
    parent, quiet = session(slots_per_piece=1), session(slots_per_piece=1)
    parent.observe(frames(17))
    quiet.observe(frames(17))
    assert has_room(parent, 60)
    forks = [parent.fork() for _ in range(3)]
    assert all(same_bits(f.state, parent.state) for f in forks)
    for number, fork in enumerate(forks):
        fork.observe(frames(6, start=100 * (number + 1)))
    forks[0].close()
    parent.observe(frames(6, start=17))
    quiet.observe(frames(6, start=17))
    assert same_bits(parent.state, quiet.state) and answer(parent) == answer(quiet)
    alone = session(slots_per_piece=1)
    alone.observe(frames(17))
    alone.observe(frames(6, start=200))
    assert same_bits(forks[1].state, alone.state)
    assert not same_bits(forks[1].state.decoder, forks[2].state.decoder)


def test_stats_count():
    watched = session()
    assert watched.stats().state_bytes == 0 and watched.stats().seconds_seen == 0.0
    watched.observe(frames(41))
    stats = watched.stats()
    assert (stats.num_frames, stats.num_slots, stats.seconds_seen) == (41, 20, 20.0)
    ids, _ = offline(frames(40), "")
    question = len(processor().question_ids(""))
    assert stats.num_tokens == ids.shape[1] - question
    assert stats.state_bytes == watched.state.decoder.num_bytes
    longest = len(processor().slot_ids(10.0, (2, 3))[0]) - 6
    budget = state_budget(model().config, (2, 3), torch.float32, text_per_slot=longest)
    assert 0.85 * budget.fixed <= stats.ttt_bytes <= budget.fixed
    assert stats.anchor_bytes <= stats.num_tokens * budget.anchor_bytes_per_token
    assert stats.timings.vision > 0 and stats.timings.decoder > 0 and stats.timings.answer == 0
    answer(watched)
    assert watched.stats().timings.answer > 0


def test_a_budget_is_kept_and_the_refused_piece_is_not_seen():
    watched = session(slots_per_piece=2)
    watched.observe(frames(8))
    limited = session(slots_per_piece=2, max_bytes=watched.stats().state_bytes)
    with pytest.raises(BudgetError, match="the budget is"):
        limited.observe(frames(30))
    assert same_bits(limited.state, watched.state), "nothing of the refused piece stays"
    assert answer(limited) == answer(watched)
    with pytest.raises(BudgetError):
        limited.observe(frames(4, start=8))
    roomy = session(slots_per_piece=2)
    roomy._state = limited.state  # as restoring its snapshot under a larger budget does
    roomy.observe(frames(4, start=8))
    watched.observe(frames(4, start=8))
    assert same_bits(roomy.state, watched.state)


def test_a_closed_session():
    with session() as watched:
        watched.observe(frames(2))
        running = watched.ask(QUESTION, SHORT)
        next(running)
    for use in (
        lambda: watched.observe(frames(1)),
        lambda: watched.ask(QUESTION),
        watched.fork,
        watched.stats,
        lambda: watched.snapshot("never.safetensors"),
        lambda: watched.state,
    ):
        with pytest.raises(SessionClosed, match="open a new one"):
            use()
    watched.close()
    list(running)  # an answer under way may be read to its end


def test_closing_while_frames_come_ends_the_watching():
    watched = session(slots_per_piece=1)

    def endless():
        for number, frame in enumerate(frames(100)):
            if number == 5:
                watched.close()
            yield frame

    with pytest.raises(SessionClosed):
        watched.observe(endless())
    assert watched._state.num_frames == 0


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (
            Frame(np.zeros((32, 50, 3), np.uint8), 9.0),
            "frame of 32x50 pixels at 9.00 s in a stream of",
        ),
        (Frame(frames(1)[0].pixels, 0.2), "follows one at 1.000 s; times must not go backwards"),
        (Frame(frames(1)[0].pixels, float("nan")), "times are finite seconds"),
        (Frame(np.full((32, 48, 3), np.nan), 9.0), "frame holds NaN"),
        (Frame(np.zeros((32, 48), np.uint8), 9.0), "not \\[height, width, 3\\]"),
        (Frame(np.zeros((0, 48, 3), np.uint8), 9.0), "not \\[height, width, 3\\]"),
        (Frame([[1]], 9.0), "pixels are a list"),
    ],
)
def test_bad_frames_are_refused_and_the_ones_before_stay(bad, complaint):
    watched, quiet = session(), session()
    with pytest.raises(VideoError, match=complaint):
        watched.observe([*frames(3), bad, *frames(3, start=3)])
    quiet.observe(frames(3))
    assert same_bits(watched.state.decoder, quiet.state.decoder)
    assert watched.state.num_frames == 3
    watched.observe(frames(3, start=3))  # and the stream goes on
    quiet.observe(frames(3, start=3))
    assert same_bits(watched.state.decoder, quiet.state.decoder)


def test_a_source_that_fails_keeps_what_came():
    watched = session()

    def failing():
        yield from frames(5)
        raise OSError("the camera is gone")

    with pytest.raises(OSError, match="camera"):
        watched.observe(failing())
    assert watched.stats().num_frames == 5 and watched.stats().num_slots == 2


def test_an_empty_question():
    with pytest.raises(SessionError, match="ask something"):
        session().ask("  ")


def test_equal_times_are_allowed():
    watched = session()
    watched.observe([Frame(f.pixels, 1.0) for f in frames(4)])
    assert watched.stats().num_slots == 2


def test_bounded_anchors_that_hold_everything_change_nothing():
    roomy = session(anchors=AnchorPolicy(1, 1000, 0, 64, 16))
    exact = session()
    roomy.observe(frames(20))
    exact.observe(frames(20))
    assert relative(question_logits(roomy), question_logits(exact)) <= 5e-4
    assert answer(roomy) == answer(exact)
