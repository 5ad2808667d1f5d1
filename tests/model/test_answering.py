"""Tokens of answers by the engine: as plain decoding says, whoever asks, whatever comes in between."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from spatial_ttt.errors import SessionError
from spatial_ttt.model import answering
from spatial_ttt.model.answering import Answer
from spatial_ttt.model.layout import text
from spatial_ttt.model.state import DecoderState
from spatial_ttt.model.steady_answer import SteadyAnswer
from spatial_ttt.questions import asked, end_video, read_question
from spatial_ttt.testing.small import small_model
from tests.model.streams import model_of, push, random_stream, relative, video

WIDE = {"chunk_size": 10_000, "window_size": 30}


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def forks(model: Any, more: int, count: int = 1, slots: int = 7) -> list[DecoderState]:
    stream = random_stream(model, video((2, 3), slots, ends=False)).to(str(model.device))
    state = push(model, stream, range(8, stream.length, 8))[1]
    ended = end_video(model, state, 5 + more)
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 30, (count, 1, 5), generator=g).to(model.device)
    return [read_question(model, ended, asked(row), more).fork for row in ids]


def plainly(model: Any, fork: DecoderState, tokens: list[int]) -> list[Tensor]:
    """Logits after each token."""
    said = []
    for token in tokens:
        ids = torch.tensor([[token]], device=model.device)
        done, fork = model.decode_piece(ids, (text(1),), None, fork)
        said.append(model.lm_head(done.hidden[0, -1]).float())
    return said


def words(count: int, first: int = 3) -> list[int]:
    return [(first + 7 * n) % 200 for n in range(count)]


def pushed(answer: Answer, tokens: list[int]) -> list[Tensor]:
    return [answer.push(token).clone() for token in tokens]


def same(found: list[Tensor], wanted: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.fixture
def by_engine(monkeypatch) -> list[int]:
    """Tokens that went through an engine."""
    tokens: list[int] = []
    step = SteadyAnswer.push
    monkeypatch.setattr(
        SteadyAnswer, "push", lambda self, token: tokens.append(token) or step(self, token)
    )
    return tokens


def test_one_answer_after_another(by_engine):
    model = model_of(torch.float32, **WIDE)
    first, second = forks(model, 12, 2)
    engines = set()
    for number, fork in enumerate((first, second, first)):
        answer = Answer(model, fork)
        tokens = words(12, number)
        assert same(pushed(answer, tokens), plainly(model, fork, tokens))
        assert not answer.state.layers, "nothing of the stream is kept"
        assert answer.state.num_tokens == fork.num_tokens + 12
        assert answer.state.position == fork.position + 12
        engines.add(id(answer._engine))
        with pytest.raises(SessionError, match="at most 0 more tokens got 1"):
            answer.push(3)
        answer.close()
        answer.close()
    assert len(engines) == 1 and len(by_engine) == 36


@pytest.mark.parametrize("chunk_size", range(24, 50, 3))
@pytest.mark.parametrize("rule", [{}, {"norm_placement": "pre", "use_momentum": False}], ids=str)
def test_chunks_that_fill_up_on_the_way(chunk_size, rule, by_engine):
    """Each answer goes through one write or two, anywhere among its tokens."""
    model = model_of(chunk_size=chunk_size, window_size=chunk_size, **rule)
    fork = forks(model, 40)[0]
    answer, tokens = Answer(model, fork), words(40)
    wanted = plainly(model, fork, tokens)
    for number, found in enumerate(pushed(answer, tokens)):
        assert relative(found, wanted[number]) <= 1e-5, number  # logits are float32
    answer.close()
    writes = 40 - len(by_engine)
    assert 1 <= writes <= 3, "all tokens but those that write"


def test_a_state_that_knows_no_end(by_engine):
    """Text on a whole state, as `generate` may be given one: every chunk's end is a plain step."""
    model = model_of(chunk_size=10, window_size=12)
    stream = random_stream(model, (text(7),))
    state = push(model, stream)[1]
    answer, tokens = Answer(model, state), words(45)
    wanted = plainly(model, state, tokens)
    for number, found in enumerate(pushed(answer, tokens)):
        assert relative(found, wanted[number]) <= 1e-5, number
    answer.close()
    assert 38 <= len(by_engine) < 45


def test_answers_that_take_turns(by_engine):
    """One has the engine, the other decodes plainly until it is free; then it gets it in mid-answer."""
    model = model_of(torch.float32, **WIDE)
    kept = forks(model, 30, 2)
    first, second = (Answer(model, fork) for fork in kept)
    wanted = [plainly(model, fork, words(30, n)) for n, fork in enumerate(kept)]
    found: list[list[Tensor]] = [[], []]
    for number in range(10):
        for n, answer in enumerate((first, second)):
            found[n].append(answer.push(words(30, n)[number]).clone())
    assert by_engine == words(10, 0)
    first.close()
    for token in words(30, 1)[10:]:
        found[1].append(second.push(token).clone())
    assert same(found[0], wanted[0][:10]) and same(found[1], wanted[1])
    assert by_engine == words(10, 0) + words(30, 1)[10:]
    second.close()


def test_an_answer_that_fails_loses_the_engine_only(monkeypatch, by_engine):
    model = model_of(torch.float32, **WIDE)
    fork = forks(model, 8)[0]
    answer = Answer(model, fork)
    answer.push(3)

    def fails(*_: object) -> None:
        raise torch.OutOfMemoryError("the device is full")

    with monkeypatch.context() as broken:
        broken.setattr(SteadyAnswer, "push", fails)
        with pytest.raises(torch.OutOfMemoryError):
            answer.push(4)
    answer.close()
    again = Answer(model, fork)
    assert same(pushed(again, words(8)), plainly(model, fork, words(8)))
    assert again._engine is not None
    again.close()


@pytest.mark.parametrize("step", ["load", "push"])
def test_without_memory_for_an_engine_answers_are_plain(step, monkeypatch, by_engine):
    """It is made, or captured, where the device is full."""
    model = model_of(torch.float32, **WIDE)
    fork = forks(model, 8)[0]

    def fails(*_: object) -> None:
        raise torch.OutOfMemoryError("the device is full")

    monkeypatch.setattr(SteadyAnswer, step, fails)
    answer = Answer(model, fork)
    assert same(pushed(answer, words(8)), plainly(model, fork, words(8)))
    assert not by_engine and answer._engine is None
    answer.close()


def test_memory_that_runs_out_before_a_write_costs_the_engine_only(monkeypatch, by_engine):
    model = model_of(chunk_size=34, window_size=34)
    fork = forks(model, 40)[0]
    answer, wanted = Answer(model, fork), plainly(model, fork, words(40))
    found = pushed(answer, words(4))
    assert len(by_engine) == 4

    def fails(*_: object) -> None:
        raise torch.OutOfMemoryError("the device is full")

    monkeypatch.setattr(SteadyAnswer, "push", fails)
    found += pushed(answer, words(40)[4:])
    assert all(relative(a, b) <= 1e-5 for a, b in zip(found, wanted, strict=True))
    answer.close()


def test_a_model_that_changes_gets_another_engine(by_engine):
    model = small_model(**WIDE)
    engines = []
    for _ in range(2):
        fork = forks(model, 8)[0]
        answer = Answer(model, fork)
        assert same(pushed(answer, words(8)), plainly(model, fork, words(8)))
        engines.append(answer._engine)
        answer.close()
        for parameter in model.decoder.layers[0].mlp.parameters():
            parameter.mul_(1.5)
    assert engines[0] is not engines[1]
    copy = deepcopy(model)
    fork = forks(copy, 8)[0]
    answer = Answer(copy, fork)
    assert same(pushed(answer, words(8)), plainly(copy, fork, words(8)))
    assert answer._engine not in (None, *engines)
    answer.close()


def test_with_gradients_and_in_inference_mode_answers_are_plain(by_engine):
    model = model_of(torch.float32, **WIDE)
    for mode in (torch.enable_grad, torch.inference_mode):
        fork = forks(model, 8)[0]
        with mode():
            answer = Answer(model, fork)
            found = pushed(answer, words(8))
            answer.close()
        assert same([x.detach() for x in found], plainly(model, fork, words(8)))
    assert not by_engine


@pytest.mark.gpu
def test_writes_and_answers_in_turn_on_a_gpu(by_engine):
    """Chunks that fill up on the way, two answers at once, one graph for all of it."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    model = small_model(chunk_size=40, window_size=40, use_muon=False).to("cuda")
    kept = [fork for slots in (3, 9) for fork in forks(model, 60, 1, slots)]
    wanted = [plainly(model, fork, words(60, n)) for n, fork in enumerate(kept)]
    answers = [Answer(model, fork) for fork in kept]
    for number in range(60):
        for n, answer in enumerate(answers):
            if n or number < 30:  # the first is dropped half-way
                found = answer.push(words(60, n)[number])
                assert relative(found, wanted[n][number]) <= 1e-3, (n, number)
        if number == 30:
            answers[0].close()
    answers[1].close()
    assert len(by_engine) > 40


def test_a_model_and_its_engine_die_together():
    """No reference leads from the engine to the model: its memory is free at once."""
    import gc
    import weakref

    model = small_model(**WIDE)
    answer = Answer(model, forks(model, 8)[0])
    answer.push(3)
    engine, weight = weakref.ref(answer._engine), weakref.ref(model.decoder.norm.weight)
    answer.close()
    gc.collect()
    gc.disable()
    try:
        del answer, model
        assert engine() is None and weight() is None
    finally:
        gc.enable()
    assert answering._Owner().__reduce__() == (answering._Owner, ())
