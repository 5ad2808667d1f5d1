"""The steady engine: the decoder's outputs and state, whatever was captured and whatever came before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spatial_ttt.errors import SessionError, VideoError
from spatial_ttt.model.bounded_cache import AnchorPolicy
from spatial_ttt.model.layout import END, Layout, join_all, num_tokens, slot, text
from spatial_ttt.model.state import DecoderState, own
from spatial_ttt.model.steady import SteadyDecoder
from spatial_ttt.model.steady_anchor import SteadyAnchor
from spatial_ttt.model.steady_graphs import copy_all
from spatial_ttt.model.steady_ttt import SteadyTTT
from tests.model.streams import (
    Stream,
    cuttings,
    difference,
    layouts,
    model_of,
    push,
    push_piece,
    random_stream,
    relative,
    same_bits,
)

LIMIT = {False: 1e-12, True: 1e-10}
"""By Muon: Newton-Schulz amplifies rounding up to 490 times, and sums are added up in another order."""
GRID = (2, 2)
BOUNDED = AnchorPolicy(sink_blocks=1, recent_blocks=2, older_blocks=2, block_tokens=5, bits=16)


def piece(slots: int, stamp: int = 1) -> Layout:
    """Slots as a session sends them: a time stamp before each, one token after."""
    return join_all([(text(stamp), slot(*GRID), text(1))] * slots)


def streams(model: Any, pieces: Sequence[Layout], *, batch: int = 1) -> list[Stream]:
    return [random_stream(model, p, batch=batch, seed=n) for n, p in enumerate(pieces)]


def steadily(engine: SteadyDecoder, part: Stream, *, needs_output: bool = True) -> Tensor:
    """Push one piece through the engine."""
    tokens, position = engine.decoder.tokens(
        part.hidden, part.layout, engine.position, part.deepstack
    )
    engine.position = position
    return engine.push(tokens, needs_output=needs_output).hidden


@contextmanager
def counted(engine: SteadyDecoder) -> Iterator[list[int]]:
    """How many steps of TTT layers are done plainly meanwhile."""
    calls = [0]

    def count(layer: SteadyTTT) -> None:
        real = layer._plainly

        def plainly(tokens: Any) -> Any:
            calls[0] += 1
            return real(tokens)

        layer._plainly = plainly  # type: ignore[method-assign]

    layers = [layer for layer in engine.layers if isinstance(layer, SteadyTTT)]
    for layer in layers:
        count(layer)
    yield calls
    for layer in layers:
        del layer._plainly


@torch.no_grad()
def check(
    pieces: Sequence[Layout],
    engine: SteadyDecoder | None = None,
    *,
    anchors: AnchorPolicy | None = None,
    batch: int = 1,
    **rule: Any,
) -> int:
    """The engine equals the decoder on these pieces; how many of the TTT layers' steps were replayed."""
    model, limit = model_of(**rule), LIMIT[rule.get("use_muon", True)]
    state = model.decoder.start(anchors)
    engine = engine or SteadyDecoder(model.decoder)
    engine.load(state)
    total = 0
    with counted(engine) as plain:
        for part in streams(model, pieces, batch=batch):
            expected, state = push_piece(model, part, state)
            found = steadily(engine, part)
            assert found.shape == expected.shape and relative(found, expected) <= limit
            total += sum(isinstance(layer, SteadyTTT) for layer in engine.layers)
    assert difference(engine.export(), state) <= limit
    return total - plain[0]


@pytest.mark.parametrize("convolution", ["centred", "causal", "none"])
@pytest.mark.parametrize("slots", [1, 2, 3])
def test_regular_pieces(slots, convolution):
    replayed = check([piece(slots)] * 16, chunk_size=23, convolution=convolution)
    assert replayed > 24, "most of the three layers' 48 steps are replayed"


@pytest.mark.parametrize("chunk_size", range(6, 14))
def test_chunks_end_anywhere(chunk_size):
    """A piece has 6 tokens: chunks end at each of them, and now and then exactly with it."""
    assert check([piece(1)] * 24, chunk_size=chunk_size) > 20


@pytest.mark.parametrize("rule", [
    {"norm_placement": "pre"}, {"use_momentum": False}, {"use_muon": False}, {"low_rank": 2},
    {"norm_placement": "pre", "use_momentum": False, "use_muon": False}, {"use_gate": False},
    {"window_size": 2}, {"window_size": 64}, {"chunk_size": 3},
])  # fmt: skip
def test_other_rules(rule):
    assert (check([piece(1)] * 20, **rule) > 15) == (rule.get("chunk_size") != 3)


def test_time_stamps_get_longer_on_the_way():
    pieces = [piece(1, 1)] * 9 + [piece(1, 2)] * 9 + [piece(1, 3)] * 9
    assert check(pieces) > 3 * 9
    mixed = [join_all([piece(1, 1), piece(1, 2)])] * 6
    assert check([*mixed, *[piece(2, 2)] * 12], chunk_size=16) > 3 * 6


def test_a_new_video_finds_the_captured_work_again():
    one = [piece(1)] * 10
    pieces = [*one, (END, text(3)), *one, (END,), (text(2),), *one]
    model = model_of()
    engine = SteadyDecoder(model.decoder)
    first = check(one, engine)
    assert check(pieces, engine) >= 2.5 * first
    assert all(len(layer.known) <= 4 for layer in engine.layers)


def test_text_alone():
    assert check([(text(5),)] * 12) > 3 * 4
    assert check([(text(1),)] * 40, chunk_size=4, window_size=4) > 3 * 20
    check([piece(2), *[(text(3),)] * 6, *[piece(1)] * 5, (text(1),)])


def test_rows_of_a_batch():
    assert check([piece(1)] * 14, batch=3) > 20


def test_bounded_anchors():
    assert check([piece(1)] * 20, anchors=BOUNDED) > 20
    assert check([piece(2)] * 12, anchors=BOUNDED._replace(bits=8), chunk_size=16) > 15


def test_a_decoder_that_ends_in_a_ttt_layer():
    check([piece(1)] * 10, layer_pattern=("anchor", "ttt"))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(layout=layouts(), data=st.data())
@torch.no_grad()
def test_any_stream_in_any_pieces(layout, data):
    """One engine for all examples: what it knows from other streams must not matter."""
    model = model_of(chunk_size=5)
    stream = random_stream(model, layout, seed=num_tokens(layout))
    borders = sorted({0, *data.draw(cuttings(stream.length)), stream.length})
    expected, end = push(model, stream, borders)
    ENGINE.load(model.decoder.start())
    found = [steadily(ENGINE, stream.piece(a, b)) for a, b in pairwise(borders)]
    assert relative(torch.cat([stream.hidden[:, :0], *found], dim=1), expected) <= LIMIT[True]
    assert difference(ENGINE.export(), end) <= LIMIT[True]


ENGINE = SteadyDecoder(model_of(chunk_size=5).decoder)


@torch.no_grad()
@pytest.mark.parametrize("anchors", [None, BOUNDED])
def test_without_output_the_state_is_the_same(anchors):
    model = model_of()
    loud, mute = SteadyDecoder(model.decoder), SteadyDecoder(model.decoder)
    for engine in (loud, mute):
        engine.load(model.decoder.start(anchors))
    for part in streams(model, [piece(1)] * 14 + [(END, text(2))]):
        steadily(loud, part)
        steadily(mute, part, needs_output=False)
    assert same_bits(mute.export(), loud.export())
    question = random_stream(model, (text(4),), seed=99)
    assert torch.equal(steadily(mute, question), steadily(loud, question))


def copy_of(state: DecoderState) -> DecoderState:
    """A deep copy, caches too."""
    layers = tuple(
        s._replace(keys=s.keys.clone(), values=s.values.clone()) if hasattr(s, "tail") else own(s)
        for s in state.layers
    )
    return state._replace(layers=layers)


@torch.no_grad()
@pytest.mark.parametrize("anchors", [None, BOUNDED])
def test_an_export_is_left_alone_and_may_be_pushed_on(anchors):
    model = model_of()
    parts = streams(model, [piece(1)] * 24)
    engine = SteadyDecoder(model.decoder)
    state = model.decoder.start(anchors)
    engine.load(state)
    exports = []
    for part in parts:
        steadily(engine, part)
        _, state = push_piece(model, part, state)
        exported = engine.export()
        exports.append((exported, copy_of(exported)))
        push_piece(model, random_stream(model, (END, text(7)), seed=5), exported)  # a question
    assert all(same_bits(kept, copy) for kept, copy in exports)
    assert difference(engine.export(), state) <= LIMIT[True]


@torch.no_grad()
def test_a_loaded_state_is_left_alone_and_captured_work_is_kept():
    model = model_of(chunk_size=20)  # most pieces leave the weights as they lie
    parts = streams(model, [piece(1)] * 30)
    engine = SteadyDecoder(model.decoder)
    engine.load(model.decoder.start())
    for part in parts[:12]:
        steadily(engine, part)
    _, state = push(model, joined(parts[12:30]))
    before = copy_of(state)
    engine.load(state)
    with counted(engine) as plain:
        for part in parts[:8]:
            expected, state = push_piece(model, part, state)
            assert relative(steadily(engine, part), expected) <= LIMIT[True]
    assert plain[0] == 0, "every step was replayed"
    assert difference(engine.export(), state) <= LIMIT[True]
    engine.load(before)
    kept = copy_of(before)
    fresh = SteadyDecoder(model.decoder)  # settles where the loaded state lies, so it must copy it
    fresh.load(before)
    for part in parts[:8]:
        for each in (engine, fresh):
            steadily(each, part)
        assert same_bits(before, kept)


def joined(parts: Sequence[Stream]) -> Stream:
    deepstack = [p.deepstack for p in parts if p.deepstack is not None]
    hidden = torch.cat([p.hidden for p in parts], dim=1)
    return Stream(join_all([p.layout for p in parts]), hidden, torch.cat(deepstack, dim=2))


@torch.no_grad()
def test_streams_take_turns_on_one_engine():
    """A steady stream, one that begins, and one of another layout share an engine piece by piece."""
    model = model_of()
    engine = SteadyDecoder(model.decoder)
    kinds = [[piece(1)] * 20, [piece(1, 2)] * 20, [piece(2)] * 20, [(text(3),)] * 20]
    parts = [[random_stream(model, p, seed=7 * n + i) for i, p in enumerate(kind)]
             for n, kind in enumerate(kinds)]  # fmt: skip
    expected = [model.decoder.start() for _ in kinds]
    parked = [model.decoder.start() for _ in kinds]
    with counted(engine) as plain:
        for turn in range(20):
            for n in range(len(kinds)):
                engine.load(parked[n])
                out, expected[n] = push_piece(model, parts[n][turn], expected[n])
                assert relative(steadily(engine, parts[n][turn]), out) <= LIMIT[True]
                parked[n] = engine.export()
    assert plain[0] < 3 * 80, "some steps were replayed"
    assert max(difference(a, b) for a, b in zip(parked, expected, strict=True)) <= LIMIT[True]


@torch.no_grad()
def test_captured_work_is_made_once_and_is_what_runs():
    model = model_of(chunk_size=12)
    engine = SteadyDecoder(model.decoder)
    engine.load(model.decoder.start())
    layers = [layer for layer in engine.layers if isinstance(layer, SteadyTTT)]
    real, made, ran = layers[0].graphs.capture, [0], [0]

    def capture(work: Any) -> Any:
        made[0] += 1

        def run() -> Any:
            ran[0] += 1
            return work()

        return real(run)

    layers[0].graphs.capture = capture  # type: ignore[method-assign]
    parts = streams(model, [piece(1)] * 40)
    for part in parts[:20]:
        steadily(engine, part)
    anchors = len(engine.layers) - len(layers)
    # Each TTT layer: pieces that fill the chunk, pieces that do not; an anchor: before and after.
    assert made[0] == 2 * len(layers) + 2 * anchors
    assert all(len(layer.known) == 2 for layer in layers)
    ran[0] = 0
    with counted(engine) as plain:
        for part in parts[20:]:
            steadily(engine, part)
    assert plain[0] == 0 and ran[0] == 20 * (len(layers) + 2 * anchors)
    assert made[0] == 2 * len(layers) + 2 * anchors


@torch.no_grad()
def test_a_refused_piece_changes_nothing_and_a_torn_state_says_so():
    model = model_of()
    engine = SteadyDecoder(model.decoder)
    engine.load(model.decoder.start())
    parts = streams(model, [piece(1)] * 12)
    for part in parts[:10]:
        steadily(engine, part)
    before = engine.export()
    position = engine.position
    with pytest.raises(VideoError, match="end the video before"):
        steadily(engine, random_stream(model, (slot(1, 2),)))
    engine.position = position
    assert same_bits(engine.export(), before)

    def fails(*_: object, **__: object) -> None:
        raise MemoryError("the device is full")

    broken = engine.layers[1]
    assert isinstance(broken, SteadyTTT)
    broken.push = fails  # type: ignore[assignment, method-assign]
    with pytest.raises(MemoryError):
        steadily(engine, parts[10])
    del broken.push
    for use in (engine.export, engine.view, lambda: steadily(engine, parts[10])):
        with pytest.raises(SessionError, match="failed half-way"):
            use()
    engine.load(before)
    expected, _ = push_piece(model, parts[10], before)
    assert relative(steadily(engine, parts[10]), expected) <= LIMIT[True]


def test_inference_mode_is_refused():
    model = model_of()
    engine = SteadyDecoder(model.decoder)
    engine.load(model.decoder.start())
    with torch.inference_mode(), pytest.raises(SessionError, match="no_grad"):
        steadily(engine, random_stream(model, (text(2),)))


@torch.no_grad()
def test_a_view_is_the_state_without_a_copy():
    model = model_of()
    engine = SteadyDecoder(model.decoder)
    engine.load(model.decoder.start())
    for part in streams(model, [piece(1)] * 12):
        steadily(engine, part)
    view, export = engine.view(), engine.export()
    assert same_bits(view, export) and view.num_bytes == export.num_bytes
    for layer, seen, copied in zip(engine.layers, view.layers, export.layers, strict=True):
        if isinstance(layer, SteadyAnchor):
            assert copied is layer.cache
        else:
            assert seen is layer.state and copied is not seen


@pytest.mark.gpu
@torch.no_grad()
def test_replayed_graphs_equal_the_decoder_on_a_gpu() -> None:
    """Graphs for borders and without, over restarts; float32 kernels on both sides."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    model = model_of(torch.float32, chunk_size=32, window_size=40).to("cuda")
    parts = [part.to("cuda") for part in streams(model, [piece(1)] * 30 + [piece(2)] * 8)]
    engine = SteadyDecoder(model.decoder)
    for _ in range(2):
        engine.load(model.decoder.start())
        engine.position = 0
        state = model.decoder.start()
        for number, part in enumerate(parts):
            wanted, state = push_piece(model, part, state)
            found = steadily(engine, part)
            assert relative(found, wanted) <= 1e-4, number
    assert difference(engine.export().layers, tuple(state.layers)) <= 1e-3


def test_places_may_take_each_others_values():
    first, second = torch.zeros(3), torch.ones(3)
    copy_all([first, second], [second, first])
    assert first.tolist() == [1.0] * 3 and second.tolist() == [0.0] * 3
