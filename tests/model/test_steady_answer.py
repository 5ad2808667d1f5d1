"""An answer's engine: the hidden states and logits of plain decoding, to the last bit where no kernel runs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from spatial_ttt.inference import prepare
from spatial_ttt.model.bounded_cache import AnchorPolicy
from spatial_ttt.model.layout import text
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.state import DecoderState, tensors
from spatial_ttt.model.steady_answer import SteadyAnswer, kind_of
from spatial_ttt.model.steady_graphs import copy_all
from spatial_ttt.presets import _small
from spatial_ttt.questions import asked, end_video, read_question
from tests.model.streams import model_of, push, random_stream, relative, video

BOUNDED = AnchorPolicy(sink_blocks=1, recent_blocks=2, older_blocks=2, block_tokens=16, bits=16)
WIDE = 10_000
"""A chunk that nobody fills."""


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def question(length: int = 5, seed: int = 0, device: str = "cpu") -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(1, 30, (1, length), generator=g).to(device)


def watched(model: Any, slots: int = 7, anchors: AnchorPolicy | None = None) -> DecoderState:
    stream = random_stream(model, video((2, 3), slots, ends=False)).to(str(model.device))
    return push(model, stream, range(8, stream.length, 8), model.decoder.start(anchors))[1]


def plainly(model: Any, fork: DecoderState, tokens: Sequence[int]) -> list[Tensor]:
    """Hidden states after each token, one by one through the decoder."""
    said = []
    for token in tokens:
        ids = torch.tensor([[token]], device=model.device)
        done, fork = model.decode_piece(ids, (text(1),), None, fork)
        said.append(done.hidden[0, -1])
    return said


def steadily(engine: SteadyAnswer, fork: DecoderState, tokens: Sequence[int]) -> list[Tensor]:
    engine.load(fork)
    return [engine.push(token).hidden.clone() for token in tokens]


def engine_of(model: Any, fork: DecoderState, count: int) -> SteadyAnswer:
    kind = kind_of(model, fork, count)
    assert kind is not None
    return SteadyAnswer(model, kind)


def same(found: list[Tensor], wanted: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def words(count: int, first: int = 3) -> list[int]:
    return [(first + 7 * n) % 200 for n in range(count)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("slots", [0, 1, 3, 12])
def test_it_says_what_the_decoder_says_to_the_last_bit(slots, dtype):
    """Windows that are not full yet, that fill up while the answer goes on, and full ones."""
    model = model_of(dtype, chunk_size=WIDE, window_size=40)
    state = watched(model, slots) if slots else model.decoder.start()
    fork = read_question(model, state, asked(question()), 30).fork
    tokens = words(30)
    assert same(steadily(engine_of(model, fork, 30), fork, tokens), plainly(model, fork, tokens))


@pytest.mark.parametrize("rule", [
    {"norm_placement": "pre"}, {"use_momentum": False}, {"convolution": "causal"}, {"convolution": "none"},
    {"use_gate": False}, {"low_rank": 2}, {"window_size": 2}, {"layer_pattern": ("anchor", "ttt")},
    {"chunk_size": 20, "window_size": 22},
])  # fmt: skip
def test_other_rules(rule):
    """The last of them has written: the weights in use are not the trained ones, and nothing more is written."""
    model = model_of(torch.float32, **({"chunk_size": WIDE, "window_size": 30} | rule))
    fork = read_question(model, watched(model), asked(question(15)), 4).fork
    tokens = words(4)
    engine = engine_of(model, fork, 4)
    for _ in range(2):
        assert same(steadily(engine, fork, tokens), plainly(model, fork, tokens))


def test_an_answer_longer_than_the_room_behind_the_windows(monkeypatch):
    room = 48
    monkeypatch.setattr("spatial_ttt.model.steady_answer.ROOM", room)
    monkeypatch.setattr("spatial_ttt.model.answer_pages.PAGE", 32)
    model = model_of(torch.float32, chunk_size=WIDE, window_size=30)
    count = 2 * room + 70
    fork = read_question(model, watched(model), asked(question()), count).fork
    tokens = words(count)
    assert same(steadily(engine_of(model, fork, count), fork, tokens), plainly(model, fork, tokens))


@pytest.mark.parametrize("bits", [16, 8])
def test_bounded_anchors(bits):
    """Blocks are closed on the way and kept or dropped by the rule."""
    model = model_of(torch.float32, chunk_size=WIDE, window_size=30)
    state = watched(model, 20, BOUNDED._replace(bits=bits))
    fork = read_question(model, state, asked(question()), 60).fork
    tokens = words(60)
    assert same(steadily(engine_of(model, fork, 60), fork, tokens), plainly(model, fork, tokens))


class Replays:
    """Stands for CUDA graphs: every call of captured work leaves its results where the first one did."""

    is_on = True

    def __init__(self, device: torch.device) -> None: ...

    def capture(self, work: Any) -> Any:
        kept: list[Any] = []

        def run() -> Any:
            kept.append(work()) if not kept else copy_all(
                list(tensors(kept[0])), list(tensors(work()))
            )
            return kept[0]

        return run


@pytest.mark.parametrize("pattern", [
    ("ttt", "anchor"), ("anchor", "ttt"), ("anchor", "anchor", "ttt", "ttt"), ("anchor",), ("ttt",),
])  # fmt: skip
def test_what_cannot_be_captured_stands_between_what_can(pattern, monkeypatch):
    monkeypatch.setattr("spatial_ttt.model.steady_answer.Graphs", Replays)
    model = model_of(torch.float32, chunk_size=WIDE, window_size=30, layer_pattern=pattern)
    state, engine = end_video(model, watched(model), 60), None
    for seed in range(2):
        fork = read_question(model, state, asked(question(seed=seed)), 40).fork
        engine = engine or engine_of(model, fork, 40)
        assert same(steadily(engine, fork, words(40)), plainly(model, fork, words(40)))
    layers = [kind for kind in pattern * 4][:4]
    runs = sum(kind == "ttt" and before != "ttt" for before, kind in pairwise(["", *layers]))
    begins_apart = layers[0] == "anchor"  # the embedding is a step of its own
    assert engine is not None
    assert len(engine._works) == layers.count("anchor") + runs + begins_apart


def test_one_engine_answers_on_stream_after_stream():
    """Logits too, and what was loaded stays as it was."""
    model = model_of(torch.float32, chunk_size=WIDE, window_size=30)
    engine = None
    for slots in (2, 9, 5):
        state = end_video(model, watched(model, slots), 40)
        forks = [read_question(model, state, asked(question(seed=n)), 20).fork for n in range(2)]
        wanted = [plainly(model, fork, words(20, n)) for n, fork in enumerate(forks)]
        engine = engine or engine_of(model, forks[0], 20)
        for n, fork in enumerate(forks):
            assert same(steadily(engine, fork, words(20, n)), wanted[n])
            engine.load(fork)
            logits = model.lm_head(wanted[n][0]).float()
            assert torch.equal(engine.push(words(1, n)[0]).logits, logits)
        engine.clear()
        assert same(plainly(model, forks[1], words(20, 1)), wanted[1])


def test_what_is_not_steady_is_not_taken():
    model = model_of(torch.float32, chunk_size=WIDE, window_size=30)
    assert kind_of(model, model.decoder.start(), 4) is None, "nothing was seen"
    assert kind_of(model, watched(model), 4) is None, "a slot is held back"
    wide = model_of(torch.float32, chunk_size=WIDE, window_size=1 << 30)
    fork = read_question(wide, watched(wide), asked(question()), 4).fork
    assert kind_of(wide, fork, 4) is None, "a window without end"
    rows = random_stream(model, (text(5),), batch=2)
    assert kind_of(model, push(model, rows)[1], 4) is None, "two rows"
    assert kind_of(model, read_question(model, watched(model), asked(question()), 4).fork, 4)


def wide_model(device: str) -> Any:
    """Fast heads as wide as those of the 2B model are treated, four layers, bfloat16, laid out for inference."""
    size = {"hidden": 512, "mlp": 512, "layers": 4, "heads": 4, "vocab": 300}
    tower = {"hidden": 16, "mlp": 32, "depth": 1, "heads": 2, "positions": 16, "taps": [0]}
    config = _small(size, tower, None, {"num_fast_heads": 2, "chunk_size": 600, "window_size": 600})
    torch.manual_seed(0)
    model = SpatialTTTForConditionalGeneration(config).to(device, torch.bfloat16).eval()
    for layer in model.decoder.layers:
        gate = getattr(layer.self_attn, "ttt_scale_proj", None)
        if gate is not None:
            gate.bias.fill_(2.0)  # open
    prepare(model)
    return model


def check_wide(device: str, lengths: Sequence[int]) -> SteadyAnswer:
    """Weights that were written, pages that are shared; limits are bfloat16's noise over four layers."""
    model = wide_model(device)
    engine = None
    for slots in lengths:
        state = end_video(model, watched(model, slots), 100)
        fork = read_question(model, state, asked(question(device=device)), 40).fork
        engine = engine or engine_of(model, fork, 40)
        wanted = plainly(model, fork, words(40))
        for number, found in enumerate(steadily(engine, fork, words(40))):
            assert relative(found.float(), wanted[number].float()) <= 0.05, (slots, number)
        engine.clear()
    assert engine is not None
    return engine


def test_a_wide_model_in_half_precision():
    check_wide("cpu", (30, 90))


@pytest.mark.gpu
def test_a_wide_model_replayed_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    assert len(check_wide("cuda", (100, 260))._works) == 1


@pytest.mark.gpu
@pytest.mark.parametrize("anchors", [None, BOUNDED, BOUNDED._replace(bits=8)])
def test_replayed_graphs_equal_the_decoder_on_a_gpu(
    anchors: AnchorPolicy | None, monkeypatch
) -> None:
    """One graph over answers of two streams, windows that fill up and move back, pages and blocks that fill up."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    monkeypatch.setattr("spatial_ttt.model.answer_pages.PAGE", 32)
    monkeypatch.setattr("spatial_ttt.model.steady_answer.ROOM", 48)
    model = model_of(torch.float32, chunk_size=WIDE, window_size=60).to("cuda")
    engine = None
    for slots in (4, 25, 13):
        state = end_video(model, watched(model, slots, anchors), 200)
        for seed in range(2):
            ids = question(seed=seed, device="cuda")
            fork = read_question(model, state, asked(ids), 130).fork
            engine = engine or engine_of(model, fork, 130)
            tokens = words(130, seed)
            wanted = plainly(model, fork, tokens)
            for number, found in enumerate(steadily(engine, fork, tokens)):
                assert relative(found, wanted[number]) <= 1e-4, (slots, seed, number)
            engine.clear()
    is_whole = anchors is None or anchors.bits == 16
    assert engine is not None and len(engine._works) == (1 if is_whole else 2)
