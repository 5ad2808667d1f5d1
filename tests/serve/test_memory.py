"""A server that watches on and on holds what it held: counted, not guessed."""

from __future__ import annotations

import gc
import sys

from spatial_ttt.serve import heap
from tests.serve.parts import opened, running, wire

WARM, MORE = 20, 80


def watch(client, session, first, stop):
    """Watch frames first..stop-1 over one WebSocket."""
    with client.websocket_connect(f"/v1/sessions/{session}/stream") as socket:
        for index in range(first, stop):
            socket.send_bytes(wire(index))
        while True:
            message = socket.receive_json()
            if message["type"] == "ack" and message["seen"] == stop - 1:
                return message["slots"]


def blocks():
    """Small blocks of memory that Python has handed out."""
    gc.collect()
    return sys.getallocatedblocks()


def test_a_bounded_session_keeps_nothing_of_a_slot_that_passed(tmp_path):
    with running(tmp_path, anchor_bytes=1 << 20) as client:
        first, second = opened(client), opened(client)
        watch(client, first, 0, 2 * (WARM + MORE))  # what all sessions share and keep is there now
        watch(client, second, 0, 2 * WARM)
        before = blocks()
        assert watch(client, second, 2 * WARM, 2 * (WARM + MORE)) == WARM + MORE
        # Notes as dicts of lists took 20 blocks a slot; what is left is the interpreter's own.
        assert blocks() - before < 8 * MORE


def test_the_server_tells_what_its_memory_is_made_of(tmp_path):
    with running(tmp_path) as client:
        session = opened(client)
        watch(client, session, 0, 4)
        lines = client.get("/metrics").text.splitlines()
        told = dict(line.split() for line in lines if not line.startswith("#"))
        timeline = client.service.pool.open[session].record.timeline
        assert float(told["spatial_ttt_timeline_bytes"]) == timeline.num_bytes > 0
        assert float(told["spatial_ttt_heap_live_bytes"]) >= 0


def test_free_memory_goes_back_and_what_lives_is_told():
    if heap.live_bytes() is None:  # not glibc: nothing is known, and giving back does nothing
        heap.give_back()
        return
    before = heap.live_bytes()
    block = bytearray(50_000_000)
    assert heap.live_bytes() - before > 40_000_000  # others may free a little meanwhile
    del block
    heap.give_back()
    assert heap.live_bytes() - before < 10_000_000
