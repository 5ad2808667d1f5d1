"""A question read as a short continuation says what a whole fork says, and costs only what it adds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spatial_ttt.errors import SessionError
from spatial_ttt.model.fast_weights import BriefState
from spatial_ttt.model.kv_cache import KVCache
from spatial_ttt.model.layout import END, text
from spatial_ttt.model.state import DecoderState, Trailing, TTTState, brief, storages, tensors
from spatial_ttt.questions import Piece, Read, asked, end_video, read_question
from tests.model.streams import model_of, push, random_stream, relative, same_bits, video

MORE = 6


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def question(length: int = 5, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(1, 30, (1, length), generator=g)


def watched(model, slots: int = 7) -> DecoderState:
    stream = random_stream(model, video((2, 3), slots, ends=False))
    return push(model, stream, range(8, stream.length, 8))[1]


def on_a_fork(model, state: DecoderState, ids: Tensor) -> list[Tensor]:
    """Hidden states of a question's last token and of the tokens decoded after it, the plain way."""
    done, fork = model.decode_piece(ids, (END, text(ids.shape[1])), None, state)
    return [done.hidden[0, -1], *decoded(model, fork)]


def decoded(model, fork: DecoderState) -> list[Tensor]:
    said = []
    for step in range(MORE):
        done, fork = model.decode_piece(torch.tensor([[3 + step]]), (text(1),), None, fork)
        said.append(done.hidden[0, -1])
    return said


def close(found: list[Tensor], expected: list[Tensor]) -> bool:
    return all(relative(a, b) <= 1e-10 for a, b in zip(found, expected, strict=True))


def whole(model, read: Read) -> list[Tensor]:
    return [read.hidden, *decoded(model, read.fork)]


RULES = [
    {"chunk_size": size, "window_size": size + 2} for size in (5, 7, 16, 29, 30, 31, 64, 500)
] + [{"norm_placement": "pre"}, {"use_momentum": False}, {"convolution": "causal"}]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_question_is_what_a_fork_says(rule):
    model = model_of(**rule)
    state, quiet = watched(model), watched(model)
    expected = on_a_fork(model, quiet, question())
    assert close(whole(model, read_question(model, state, asked(question()), MORE)), expected)
    assert same_bits(state, watched(model)), "the stream is untouched"
    ended = end_video(model, state, 5 + MORE)
    for seed in (0, 1, 0):
        read = read_question(model, ended, asked(question(seed=seed)), MORE)
        assert close(whole(model, read), on_a_fork(model, quiet, question(seed=seed)))
    assert same_bits(state, watched(model))


def test_a_question_before_the_first_frame():
    model = model_of()
    start = model.decoder.start()
    read = read_question(model, start, Piece(question(), (text(5),)), MORE)
    assert close(whole(model, read), on_a_fork(model, start, question()))


def test_only_what_a_write_needs_is_kept():
    """With a chunk that nobody fills a continuation holds the stream's weights and no sums at all."""
    model = model_of(chunk_size=500, window_size=500)
    state = watched(model)
    fork = read_question(model, state, asked(question()), MORE).fork
    for mine, theirs in zip(fork.layers, state.layers, strict=True):
        if isinstance(mine, TTTState) and isinstance(theirs, TTTState):
            assert isinstance(mine.fast, BriefState) and mine.fast.gradient is None
            assert all(a is b for a, b in zip(mine.fast.weights, theirs.fast.weights, strict=True))
            assert mine.held is None and mine.context is None
        elif isinstance(mine, KVCache) and isinstance(theirs, KVCache):
            assert mine.pages[-1][0].data_ptr() == theirs.segments[-1][0].data_ptr()
            assert theirs.high_water == [theirs.tail]


def test_sums_are_made_where_the_answer_crosses_a_border():
    model = model_of(chunk_size=40, window_size=40)
    state = watched(model)
    layer = next(s for s in state.layers if isinstance(s, TTTState))
    room = 40 - layer.fast.num_tokens - (layer.held.tokens.length if layer.held else 0)
    assert room > 5
    for more, keeps in ((room - 5, False), (room - 4, True)):
        fork = read_question(model, state, asked(question()), more).fork
        first = next(s for s in fork.layers if isinstance(s, TTTState))
        assert (first.fast.gradient is not None) == keeps


def test_more_tokens_than_were_told_are_refused():
    model = model_of(chunk_size=500, window_size=500)
    fork = read_question(model, watched(model), asked(question()), 1).fork
    fork = model.decode_piece(torch.tensor([[3]]), (text(1),), None, fork)[1]
    with pytest.raises(SessionError, match="at most 0 more tokens got 1"):
        model.decode_piece(torch.tensor([[3]]), (text(1),), None, fork)


def test_a_brief_state_shares_everything():
    model = model_of()
    state = watched(model)
    short = brief(state, 9)
    assert storages(short) == storages(state)
    assert sum(1 for _ in tensors(short.layers)) >= sum(1 for s in state.layers if s is not None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("chunk_size", [16, 31, 500])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_says_the_same(chunk_size, dtype, monkeypatch):
    monkeypatch.setattr("spatial_ttt.model.kv_cache.PAGE_TOKENS", 16)
    rule = {"chunk_size": chunk_size, "window_size": chunk_size + 2}
    from spatial_ttt.testing.small import small_model

    model = small_model(**rule).to("cuda", dtype)
    stream = random_stream(model, video((2, 3), 7, ends=False)).to("cuda")
    state = push(model, stream, range(8, stream.length, 8))[1]
    ids = question().cuda()
    done, _ = model.decode_piece(ids, (END, text(5)), None, state)
    limit = 1e-4 if dtype == torch.float32 else 0.1
    for past in (state, end_video(model, state, 5 + MORE)):
        found = read_question(model, past, asked(ids), MORE).hidden
        assert relative(found.float(), done.hidden[0, -1].float()) <= limit


def test_a_continuation_shares_the_streams_window() -> None:
    state = watched(model_of())
    continued = brief(state, 8)
    for layer, own in zip(continued.layers, state.layers, strict=True):
        if isinstance(own, TTTState) and own.window is not None:
            assert isinstance(layer, TTTState) and isinstance(layer.window, Trailing)
            assert layer.window.past is own.window and layer.window.own is None
