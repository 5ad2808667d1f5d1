"""What is measured of many sessions is what a server does with them."""

from __future__ import annotations

import pytest
import torch

from spatial_ttt.bench.sessions import _open, measure_sessions
from spatial_ttt.model.state import DecoderState, tensors
from spatial_ttt.serve import hosted
from spatial_ttt.serve.memory_note import observe
from spatial_ttt.session import StreamingSession
from spatial_ttt.steady_stream import SharedStream
from spatial_ttt.video.frame import Frame
from tests.bench.parts import small_rig
from tests.bench.test_ingest import assert_equal


def test_a_line_of_either_engine_has_the_same_figures():
    steady, plain = (measure_sessions(small_rig(engine=name)) for name in ("steady", "plain"))
    assert steady.keys() == plain.keys()
    rig = small_rig()
    plan = rig.plan
    frames = 2 * (plan.session_before + rig.warm_slots + plan.session_slots)
    assert steady["frames"] == plain["frames"] == frames
    assert steady["engine_bytes"] > 0 and plain["engine_bytes"] is None
    assert steady["bytes_per_session"] > 50_000 and plain["bytes_per_session"] > 50_000


def test_it_watches_by_what_a_server_watches_by():
    assert hosted.observe is observe  # a server's sessions go through the function that is measured


def places_of(state: DecoderState) -> set[int]:
    """Where the memory of all tensors that hold anything begins."""
    return {x.untyped_storage().data_ptr() for x in tensors(tuple(state.layers)) if x.numel()}


@pytest.mark.parametrize("mode", ["exact", "bounded"])
def test_sessions_share_an_engine_and_nothing_else(mode):
    """One goes ahead of the others, and each is as a session that was always alone."""
    rig = small_rig(mode, engine="steady")
    engine = SharedStream(rig.model)
    sessions = _open(rig, engine)
    assert len(sessions) == rig.plan.sessions
    assert all(found.session._steady is engine for found in sessions)
    places = [places_of(found.decoder) for found in sessions]
    assert sum(map(len, places)) == len(set().union(*places))
    for number in range(6):
        for found in sessions[number % 2 :]:
            found.watch()
    for found, slots in zip(sessions, (3, 6, 6), strict=True):
        count = 2 * (rig.plan.session_before + rig.warm_slots + slots)
        alone = StreamingSession(rig.model, rig.subject.processor, anchors=rig.anchors)
        pixels = rig.pool[:2].numpy()
        alone.observe(Frame(pixels[n % 2], n / 2) for n in range(count))
        assert found.session.state.num_frames == count
        assert_equal(found.decoder, alone.state.decoder)


def test_a_session_is_fed_the_stream_that_others_measure():
    """Patches, ids and layout of a slot are the subject's own, at any time of a stream."""
    subject = small_rig().subject
    processor, frames = subject.processor, subject.frames(2)
    patches, grid = processor.patches(frames)
    torch.testing.assert_close(patches.to(subject.dtype), subject.patches(frames))
    assert grid == subject.grid
    merged = (grid[0] // 2, grid[1] // 2)
    for time in (0.25, 12.3, 12345.6):
        assert processor.slot_ids(time, merged) == (subject.slot_ids, subject.layout(1))
    assert len(processor.prefix_ids) == 3
