"""Every engine leaves the same stream behind, and questions leave it alone."""

from __future__ import annotations

import pytest
import torch

from spatial_ttt.bench.asking import Asking, answer, first_token, first_tokens
from spatial_ttt.bench.ingest import open_ingest
from spatial_ttt.model.kv_cache import KVCache
from spatial_ttt.model.state import DecoderState, LayerState, tensors
from tests.bench.parts import SLOT_TOKENS, small_rig

ENGINES = ["plain", "steady"]


def watched(engine: str, mode: str, pieces: list[int]) -> DecoderState:
    rig = small_rig(mode)
    ingest = open_ingest(engine, rig.model, rig.subject, rig.anchors)
    frames = rig.subject.frames(sum(pieces)).split([2 * slots for slots in pieces])
    with torch.no_grad():
        ingest.watch(frames)
    return ingest.state


def assert_equal(one: DecoderState, other: DecoderState) -> None:
    assert (one.num_tokens, one.position) == (other.num_tokens, other.position)
    for a, b in zip(one.layers, other.layers, strict=True):
        for x, y in zip(held(a), held(b), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-3)


def held(layer: LayerState) -> list[torch.Tensor]:
    """What counts of a layer's state: a cache's spare room does not."""
    return list(layer.past) if isinstance(layer, KVCache) else list(tensors(layer))


@pytest.mark.parametrize("mode", ["exact", "bounded"])
@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_leaves_the_plain_stream_behind(engine, mode):
    expected, found = watched("plain", mode, [4] * 7 + [2]), watched(engine, mode, [1] * 30)
    assert expected.num_tokens == 30 * SLOT_TOKENS
    assert_equal(found, expected)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_question_leaves_the_stream_alone(engine):
    rig = small_rig(engine=engine)
    asked, quiet = rig.open(), rig.open()
    with torch.no_grad():
        for _ in range(4):
            rig.push(asked, 1)
            rig.push(quiet, 1)
            found = answer(rig.model, asked, Asking(5, 3))
            assert found.first_token > 0 and found.rest > 0
        assert_equal(asked.state, quiet.state)
        token, _ = first_token(rig.model, asked, Asking(5, 1))
        assert token == first_token(rig.model, quiet, Asking(5, 3))[0]
        assert first_tokens(rig.model, asked, Asking(5, 3), 2) > 0
        assert_equal(asked.state, quiet.state)
        asked.restart()
        assert asked.state.num_tokens == 0
        rig.push(asked, 4)
    assert asked.state.num_tokens == quiet.state.num_tokens


def test_a_view_ends_with_the_next_piece_and_a_state_does_not():
    rig = small_rig(engine="steady")
    ingest = rig.open()
    with torch.no_grad():
        rig.push(ingest, 20, piece=1)
        view, state = ingest.view, ingest.state
        assert ingest.view is ingest.state is state
        kept = [x.clone() for layer in state.layers for x in held(layer)]
        rig.push(ingest, 5, piece=1)
    assert view.num_tokens == state.num_tokens < ingest.view.num_tokens
    now = [x for layer in state.layers for x in held(layer)]
    assert all(torch.equal(a, b) for a, b in zip(kept, now, strict=True))
    before = [x for layer in view.layers for x in held(layer)]
    assert not all(torch.equal(a, b) for a, b in zip(kept, before, strict=True))
