"""A steady session is a session: the same answers at any moment, and it says so when it cannot go on."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from spatial_ttt.errors import BudgetError, SessionClosed, SessionError, VideoError
from spatial_ttt.generate import Decoding
from spatial_ttt.model.bounded_cache import AnchorPolicy
from spatial_ttt.model.layout import END, text
from spatial_ttt.model.steady import SteadyTTT
from spatial_ttt.session import StreamingSession
from spatial_ttt.testing.small import small_model
from spatial_ttt.video import Frame
from tests.model.streams import difference, relative, same_bits
from tests.scenery import SHORT, answer, frames, model, processor, session

LIMIT = 5e-4
BOUNDED = AnchorPolicy(sink_blocks=1, recent_blocks=2, older_blocks=2, block_tokens=16, bits=16)


def both(**options: Any) -> tuple[StreamingSession, StreamingSession]:
    return session(steady=True, **options), session(**options)


def logits(watched: StreamingSession, question: str = "How many?") -> torch.Tensor:
    """At a question's tokens, on a fork."""
    ids = torch.tensor([processor().question_ids(question)])
    with torch.no_grad():
        done, _ = watched.model.decode_piece(
            ids, (END, text(ids.shape[1])), None, watched.state.decoder
        )
        return watched.model.lm_head(done.hidden[:, -ids.shape[1] :])


def assert_same(steady: StreamingSession, plain: StreamingSession) -> None:
    """Equal in what was counted, and in what it says up to rounding."""
    assert steady.state._replace(decoder=None, lone=None) == plain.state._replace(
        decoder=None, lone=None
    )
    ours, theirs = steady.state.decoder, plain.state.decoder
    assert (ours.position, ours.num_tokens, ours.num_bytes) == (
        theirs.position,
        theirs.num_tokens,
        theirs.num_bytes,
    )
    assert relative(logits(steady), logits(plain)) <= LIMIT
    assert answer(steady) == answer(plain)


def replayed(watched: StreamingSession) -> int:
    """Kinds of pieces whose work a steady session has captured."""
    engine = watched._steady._engine
    layers = [layer for layer in engine.layers if isinstance(layer, SteadyTTT)]
    return sum(work is not None for layer in layers for work in layer.known.values())


@pytest.mark.parametrize("slots_per_piece", [1, 2, 4])
def test_it_answers_as_a_plain_session_at_any_moment(slots_per_piece):
    own = small_model(chunk_size=100, window_size=100)
    steady, plain = (
        StreamingSession(own, processor(), slots_per_piece=slots_per_piece, steady=is_steady)
        for is_steady in (True, False)
    )
    for start in range(0, 96, 8):  # the time stamps get a digit more on the way
        count = 7 if start == 40 else 8  # an odd frame waits for its second
        for watched in (steady, plain):
            watched.observe(frames(count, start=start))
        if start % 16 == 0:
            assert_same(steady, plain)
    assert_same(steady, plain)
    assert replayed(steady) > 0


@pytest.mark.parametrize("rule", [{"convolution": "causal"}, {"norm_placement": "pre"}])
def test_other_rules(rule):
    own = small_model(chunk_size=40, window_size=40, **rule)
    steady, plain = (
        StreamingSession(own, processor(), slots_per_piece=1, steady=is_steady)
        for is_steady in (True, False)
    )
    for watched in (steady, plain):
        watched.observe(frames(30))
    assert replayed(steady) > 0
    assert_same(steady, plain)


def test_bounded_anchors():
    steady, plain = both(anchors=BOUNDED, slots_per_piece=1)
    for start in range(0, 40, 10):
        for watched in (steady, plain):
            watched.observe(frames(10, start=start))
        assert_same(steady, plain)


def test_a_snapshot_in_the_middle_goes_on_in_either_kind(tmp_path):
    steady, plain = both(slots_per_piece=1)
    for watched in (steady, plain):
        watched.observe(frames(25))
    steady.snapshot(tmp_path / "steady.safetensors")
    plain.snapshot(tmp_path / "plain.safetensors")
    twins = [
        StreamingSession.restore(
            tmp_path / f"{kind}.safetensors", model(), processor(),
            slots_per_piece=1, steady=is_steady,
        )
        for kind, is_steady in (("steady", True), ("steady", False), ("plain", True))
    ]  # fmt: skip
    assert same_bits(twins[0].state, steady.state)
    for watched in (steady, plain, *twins):
        watched.observe(frames(15, start=25))
    for watched in (steady, *twins):
        assert_same(watched, plain)


def test_a_state_is_copied_once_per_moment_and_stays():
    steady, plain = both(slots_per_piece=1)
    kept = []
    for start in range(0, 30, 2):
        steady.observe(frames(2, start=start))
        plain.observe(frames(2, start=start))
        state = steady.state
        assert steady.state is state
        answer(steady)
        assert steady.state is state
        kept.append((state, plain.state))
    for ours, theirs in kept:
        assert difference(ours.decoder, theirs.decoder) <= LIMIT
    steady.observe([])
    assert difference(steady.state.decoder, plain.state.decoder) <= LIMIT


def test_an_answer_is_as_of_the_question_while_frames_keep_coming():
    steady, plain = both(slots_per_piece=1)
    for watched in (steady, plain):
        watched.observe(frames(20))
    expected = answer(plain, "How many?", Decoding(max_new_tokens=12))
    pieces = []
    for start, said in enumerate(steady.ask("How many?", Decoding(max_new_tokens=12))):
        pieces.append(said)
        for watched in (steady, plain):
            watched.observe(frames(2, start=20 + 2 * start))
    assert "".join(pieces) == expected and len(pieces) > 1
    assert_same(steady, plain)


def test_a_question_copies_nothing_until_the_next_piece_comes():
    steady, plain = both(slots_per_piece=1)
    for watched in (steady, plain):
        watched.observe(frames(20))
    view = steady._state.decoder
    expected = answer(plain)
    assert answer(steady) == expected
    late, begun = steady.ask("How many?", SHORT), steady.ask("How many?", SHORT)
    first = next(begun)
    many = steady.ask_all(["How many?", "Where is it?"], SHORT)
    assert steady._state.decoder is view, "no state was copied out"
    others = [answer(plain, "How many?"), answer(plain, "Where is it?")]
    for start in (20, 22, 24):
        for watched in (steady, plain):
            watched.observe(frames(2, start=start))
    assert "".join(late) == expected and first + "".join(begun) == expected
    assert ["".join(pieces) for pieces in many] == others
    assert_same(steady, plain)


def test_questions_from_another_thread():
    plain, expected = session(slots_per_piece=1), set()
    for start in range(0, 40, 2):
        plain.observe(frames(2, start=start))
        expected.add(answer(plain))
    steady = session(slots_per_piece=1, steady=True)
    steady.observe(frames(2))
    failures: list[BaseException] = []

    def watch() -> None:
        try:
            steady.observe(frames(38, start=2))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=watch)
    thread.start()
    answers = [answer(steady)]
    while thread.is_alive():
        assert steady.stats().num_frames % 2 == 0
        answers.append(answer(steady))
    thread.join()
    assert not failures and set(answers) <= expected
    assert_same(steady, plain)


def test_forks_go_their_own_ways():
    steady, plain = both(slots_per_piece=1)
    for watched in (steady, plain):
        watched.observe(frames(24))
    ours, theirs = steady.fork(), plain.fork()
    for watched in (ours, theirs):
        watched.observe(frames(10, start=100))
    for watched in (steady, plain):
        watched.observe(frames(10, start=24))
    assert_same(ours, theirs)
    assert_same(steady, plain)
    assert not same_bits(ours.state.decoder, steady.state.decoder)


def test_a_refused_piece_is_undone():
    plain = session(slots_per_piece=1)
    plain.observe(frames(24))
    steady = session(slots_per_piece=1, steady=True, max_bytes=plain.stats().state_bytes)
    with pytest.raises(BudgetError, match="the budget is"):
        steady.observe(frames(60))
    assert_same(steady, plain)
    with pytest.raises(BudgetError):
        steady.observe(frames(2, start=24))
    assert_same(steady, plain)
    steady.max_bytes = None
    for watched in (steady, plain):
        watched.observe(frames(10, start=24))
    assert_same(steady, plain)


def test_a_bad_frame_changes_nothing():
    steady, plain = both(slots_per_piece=1)
    with pytest.raises(VideoError, match="must not go backwards"):
        steady.observe([*frames(21), Frame(frames(1)[0].pixels, 0.1), *frames(3, start=21)])
    plain.observe(frames(21))
    for watched in (steady, plain):
        watched.observe(frames(6, start=21))
    assert_same(steady, plain)


def break_a_layer(watched: StreamingSession, *, number: int = 1) -> None:
    """The next step of one layer fails as a full device does."""
    layer = watched._steady._engine.layers[number]

    def fails(*_: object, **__: object) -> None:
        del layer.push
        raise torch.OutOfMemoryError("the device is full")

    layer.push = fails


def test_a_piece_that_fails_half_way_loses_a_session_nobody_copied():
    steady = session(slots_per_piece=1, steady=True)
    steady.observe(frames(24))
    break_a_layer(steady)
    with pytest.raises(SessionError, match="lost; close it and restore"):
        steady.observe(frames(4, start=24))
    for use in (
        lambda: steady.observe(frames(2, start=24)),
        lambda: steady.ask("How many?"),
        steady.fork,
        steady.stats,
        lambda: steady.state,
        lambda: steady.snapshot("never.safetensors"),
    ):
        with pytest.raises(SessionError, match="lost; close it and restore"):
            use()
    steady.close()
    with pytest.raises(SessionClosed):
        steady.stats()


def test_a_piece_that_fails_after_a_copy_or_in_the_first_layer_is_undone():
    steady, plain = both(slots_per_piece=1)
    for watched in (steady, plain):
        watched.observe(frames(24))
    assert steady.state is steady.state  # copied out
    for number in (1, 0):
        break_a_layer(steady, number=number)
        with pytest.raises(torch.OutOfMemoryError, match="the device is full"):
            steady.observe(frames(2, start=24))
        assert steady.stats().num_frames == 24
    assert_same(steady, plain)
    for watched in (steady, plain):
        watched.observe(frames(8, start=24))
    break_a_layer(steady, number=0)  # the state was not copied since, and is not torn
    with pytest.raises(torch.OutOfMemoryError):
        steady.observe(frames(2, start=32))
    assert_same(steady, plain)


def test_a_closed_session():
    with session(steady=True) as steady:
        steady.observe(frames(8))
    for use in (lambda: steady.state, lambda: steady.observe(frames(1)), steady.stats, steady.fork):
        with pytest.raises(SessionClosed, match="open a new one"):
            use()


class Overtaken:
    """A session's lock before whose n-th turn somebody else comes."""

    def __init__(self, lock: Any, number: int, other: Any) -> None:
        self.lock, self.left, self.other = lock, number, other

    def __enter__(self) -> None:
        self.left -= 1
        if not self.left:
            self.other()
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()


@pytest.mark.parametrize("turn", [1, 2, 3, 4])
def test_pieces_before_any_step_of_an_answer_change_nothing_it_was_lent(turn):
    """Lend, read, first token, second token: pieces come before one of them."""
    plain, steady = session(slots_per_piece=1), session(slots_per_piece=1, steady=True)
    for watched in (plain, steady):
        for start in range(0, 24, 2):
            watched.observe(frames(2, start=start))
    expected = answer(plain)
    for start in range(24, 36, 2):
        plain.observe(frames(2, start=start))
    if turn == 1:  # nothing was lent yet
        expected = answer(plain)
    lock = steady._lock
    steady._lock = Overtaken(
        lock, turn, lambda: [steady.observe(frames(2, start=s)) for s in range(24, 36, 2)]
    )
    assert answer(steady) == expected
    steady._lock = lock
    assert_same(steady, plain)
