"""Many sessions on one engine: each is as good as on its own, whoever comes in between."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from spatial_ttt.errors import BudgetError, VideoError
from spatial_ttt.model.bounded_cache import AnchorPolicy
from spatial_ttt.model.state import TTTState, layer_bytes
from spatial_ttt.model.steady import SteadyTTT
from spatial_ttt.session import StreamingSession
from spatial_ttt.steady_stream import SharedStream, SteadyStream, open_stream
from spatial_ttt.testing.small import small_model
from tests.bench.test_ingest import held
from tests.model.streams import difference, same_bits
from tests.scenery import SHORT, answer, frames, model, processor, session

BOUNDED = AnchorPolicy(sink_blocks=1, recent_blocks=2, older_blocks=2, block_tokens=16, bits=16)
STARTS = (0, 100, 200)


def assert_as_alone(found: StreamingSession, count: int, start: int, **options: Any) -> None:
    alone = session(**options)
    alone.observe(frames(count, start=start))
    ours, theirs = found.state.decoder, alone.state.decoder
    assert (ours.num_tokens, ours.position) == (theirs.num_tokens, theirs.position)
    assert difference(ours.layers, tuple(theirs.layers)) <= 1e-3
    assert answer(found) == answer(alone)


def captured(engine: SharedStream) -> int:
    layers = [x for x in engine._stream._engine.layers if isinstance(x, SteadyTTT)]
    return sum(work is not None for layer in layers for work in layer.known.values())


@pytest.mark.parametrize("options", [{}, {"anchors": BOUNDED}, {"max_bytes": 1 << 30}])
def test_sessions_that_take_turns_are_as_good_as_alone(options: dict[str, Any]) -> None:
    engine = SharedStream(model())
    watching = [session(steady=engine, **options) for _ in STARTS]
    for number in range(14):
        for late, (start, watched) in enumerate(zip(STARTS, watching, strict=True)):
            if number >= late:  # they are of unequal length
                watched.observe(frames(2, start=start + 2 * (number - late)))
    assert captured(engine) > 0
    for late, (start, watched) in enumerate(zip(STARTS, watching, strict=True)):
        assert_as_alone(watched, 28 - 2 * late, start, **options)


def test_an_answer_is_of_its_moment_whatever_others_watch() -> None:
    engine = SharedStream(model())
    asked, other = session(steady=engine), session(steady=engine)
    for watched, start in ((asked, 0), (other, 100)):
        for number in range(6):
            watched.observe(frames(2, start=start + 2 * number))
    wanted, kept = answer(asked), asked.state
    before = [x.clone() for layer in kept.decoder.layers for x in held(layer)]
    pieces = asked.ask("How many?", SHORT)
    said = next(pieces, "")
    other.observe(frames(2, start=112))
    asked.observe(frames(2, start=12))
    assert said + "".join(pieces) == wanted
    after = [x for layer in kept.decoder.layers for x in held(layer)]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_a_fork_shares_the_engine_and_goes_its_own_way() -> None:
    engine = SharedStream(model())
    first = session(steady=engine)
    for number in range(5):
        first.observe(frames(2, start=2 * number))
    twin = first.fork()
    assert twin._steady is engine
    for number in range(5, 9):
        twin.observe(frames(2, start=2 * number))
    assert_as_alone(first, 10, 0)
    assert_as_alone(twin, 18, 0)
    assert session(steady=True).fork()._steady is not engine


def test_a_refused_piece_and_a_closed_session_leave_the_others_alone() -> None:
    engine = SharedStream(model())
    room = session(steady=engine)
    room.observe(frames(12))
    full = session(steady=engine, max_bytes=room.state.decoder.num_bytes)
    with pytest.raises(BudgetError):
        full.observe(frames(40, start=100))
    with pytest.raises(VideoError):
        room.observe(frames(1, start=3))
    seen = full.state.num_frames
    gone = session(steady=engine)
    gone.observe(frames(6, start=200))
    gone.close()
    room.observe(frames(4, start=12))
    assert_as_alone(room, 16, 0)
    assert_as_alone(full, seen, 100)


def test_a_piece_that_fails_half_way_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = SharedStream(model())
    first, second = session(steady=engine), session(steady=engine)
    for number in range(4):
        first.observe(frames(2, start=2 * number))
        second.observe(frames(2, start=100 + 2 * number))
    last = engine._stream._engine.layers[-2]

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(type(last), "push", broken)
        with pytest.raises(RuntimeError, match="out of memory"):
            first.observe(frames(2, start=8))
    assert first.state.num_frames == 8
    second.observe(frames(2, start=108))
    first.observe(frames(2, start=8))
    assert_as_alone(first, 10, 0)
    assert_as_alone(second, 10, 100)


def test_threads_may_watch_and_ask_at_once() -> None:
    engine = SharedStream(model())
    watching = [session(steady=engine) for _ in STARTS]

    def watch(number: int) -> None:
        for at in range(10):
            watching[number].observe(frames(2, start=STARTS[number] + 2 * at))
            if at % 4 == 3:
                answer(watching[number])

    with ThreadPoolExecutor(len(STARTS)) as threads:
        list(threads.map(watch, range(len(STARTS))))
    for start, watched in zip(STARTS, watching, strict=True):
        assert_as_alone(watched, 20, start)


def test_a_snapshot_goes_on_with_an_engine(tmp_path: Path) -> None:
    engine = SharedStream(model())
    first = session(steady=engine)
    first.observe(frames(10))
    first.snapshot(tmp_path / "first.ttt")
    again = StreamingSession.restore(tmp_path / "first.ttt", model(), processor(), steady=engine)
    assert same_bits(again.state.decoder, first.state.decoder)
    again.observe(frames(4, start=10))
    assert_as_alone(again, 14, 0)


def test_an_engine_is_opened_as_asked() -> None:
    shared = SharedStream(model())
    assert open_stream(model(), False) is None
    assert isinstance(open_stream(model(), True), SteadyStream)
    assert open_stream(model(), shared) is shared


def test_an_engine_knows_what_it_holds_beside_the_sessions() -> None:
    """A state where captured work finds it and buffers; however many sessions and however long."""
    engine = SharedStream(model())
    assert engine.num_bytes == 0
    watching = [session(steady=engine) for _ in STARTS]
    held = []
    for number in range(20):
        for start, watched in zip(STARTS, watching, strict=True):
            watched.observe(frames(2, start=start + 2 * number))
        held.append(engine.num_bytes)
    fixed = sum(layer_bytes(x) for x in watching[0].state.decoder.layers if isinstance(x, TTTState))
    assert fixed <= held[-1] <= 3 * fixed
    assert held[-1] - held[-5] < 100  # anchors grow, and they are the sessions'
    assert len(set(held)) > 1
    for watched in watching:
        watched.close()
    assert engine.num_bytes == held[-1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_sessions_share_captured_graphs_on_a_gpu() -> None:
    own = small_model(chunk_size=40, window_size=40).to("cuda")
    engine = SharedStream(own)
    watching = [StreamingSession(own, processor(), steady=engine) for _ in STARTS]
    for number in range(12):
        for start, watched in zip(STARTS, watching, strict=True):
            watched.observe(frames(2, start=start + 2 * number))
    for start, watched in zip(STARTS, watching, strict=True):
        alone = StreamingSession(own, processor())
        alone.observe(frames(24, start=start))
        ours, theirs = watched.state.decoder, alone.state.decoder
        assert difference(ours.layers, tuple(theirs.layers)) <= 1e-3
        assert answer(watched) == answer(alone)
