"""A session over one WebSocket: order, repetition, gaps, answers while frames come, bad messages."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import CancelledError

import pytest
from starlette.websockets import WebSocketDisconnect

from spatial_ttt.generate import Decoding
from spatial_ttt.serve.frames import Encoding
from spatial_ttt.serve.socket import Connection
from tests.serve.parts import ask, offline, opened, png, running, wire


def until(socket, kind, **facts):
    """The next message of a kind with these facts; everything before it is dropped."""
    for _ in range(1000):
        message = socket.receive_json()
        if message["type"] == kind and facts.items() <= message.items():
            return message
    raise AssertionError(f"no {kind} came")


@pytest.fixture
def client(tmp_path):
    with running(tmp_path) as client:
        yield client


def stream(client, session):
    return client.websocket_connect(f"/v1/sessions/{session}/stream")


def test_frames_are_acknowledged_in_order_and_answers_are_about_them(client):
    session = opened(client)
    with stream(client, session) as socket:
        hello = socket.receive_json()
        assert (hello["type"], hello["next"], hello["seen"], hello["saved"]) == ("hello", 0, -1, -1)
        for index in range(5):
            socket.send_bytes(wire(index))
        socket.send_bytes(wire(5, encoding=Encoding.PNG, content=png(5), size=(0, 0)))
        for index in range(6):
            assert until(socket, "ack")["seen"] == index
        request = {"type": "ask", "ref": "q", "question": "How many?", "max_new_tokens": 12}
        socket.send_json(request)
        start = until(socket, "start", ref="q")
        assert (start["seen"], start["seconds_seen"]) == (5, 2.5)
        done = until(socket, "done", ref="q")
    assert done["answer"] == "".join(offline(6).ask("How many?", Decoding(max_new_tokens=12)))


def test_a_second_connection_goes_on_where_the_first_was_lost(client):
    session = opened(client)
    with stream(client, session) as socket:
        for index in range(4):
            socket.send_bytes(wire(index))
        until(socket, "ack", seen=2)
    with stream(client, session) as socket:
        seen = socket.receive_json()["seen"]
        assert seen >= 2
        for index in range(6):  # from the start: what was seen is not watched again
            socket.send_bytes(wire(index))
        statuses = [until(socket, "ack", id=index)["status"] for index in range(6)]
    assert statuses[: seen + 1] == ["duplicate"] * (seen + 1)
    assert statuses[4:] == ["watched"] * 2  # frame 3 may have been in hand when the line broke
    assert ask(client, session)["answer"] == "".join(
        offline(6).ask("How many?", Decoding(max_new_tokens=12))
    )


def test_a_gap_is_refused_until_it_is_declared_lost(client):
    session = opened(client)
    with stream(client, session) as socket:
        socket.send_bytes(wire(0))
        socket.send_bytes(wire(4))
        refused = until(socket, "refused")
        assert (refused["id"], refused["error"]["missing"]) == (4, [1, 3])
        socket.send_json({"type": "skip", "to": 4})
        assert until(socket, "ack", status="skipped")["seen"] == 3
        socket.send_bytes(wire(4))
        assert until(socket, "ack", id=4)["status"] == "watched"


def test_a_clock_that_jumps_back_costs_a_frame_or_is_mended(client):
    for clock, status in (("strict", "refused"), ("mend", "watched")):
        session = opened(client, clock=clock)
        with stream(client, session) as socket:
            for index, time in enumerate((100.0, 100.5, 3.0, 3.5)):
                socket.send_bytes(wire(index, time=time))
            acks = [until(socket, "ack", id=index) for index in range(4)]
        assert [ack["status"] for ack in acks[:2]] == ["watched"] * 2
        assert acks[2]["status"] == status
        if clock == "strict":
            assert "must not go backwards" in acks[2]["error"]
        else:
            assert client.get(f"/v1/sessions/{session}").json()["seconds_seen"] == 1.5


def test_frames_without_times_get_the_time_of_their_arrival(client):
    session = opened(client)
    with stream(client, session) as socket:
        for index in range(3):
            socket.send_bytes(wire(index, time=None))
            assert until(socket, "ack", id=index)["status"] == "watched"
    assert 0 < client.get(f"/v1/sessions/{session}").json()["seconds_seen"] < 60


def test_everybody_who_listens_hears_of_slots_and_saves(client):
    session = opened(client)
    with stream(client, session) as feeder, stream(client, session) as watcher:
        feeder.send_bytes(wire(0))
        feeder.send_bytes(wire(1))
        slot = until(watcher, "slot")
        assert len(slot["note"]["update"]) == len(slot["note"]["gate"]) == 3
        until(feeder, "ack", id=1)
        feeder.send_json({"type": "save"})
        assert until(watcher, "saved")["saved"] == 1


def test_an_answer_can_be_cancelled_and_the_next_one_asked(client):
    session = opened(client)
    with stream(client, session) as socket:
        socket.send_bytes(wire(0))
        until(socket, "ack")
        socket.send_json({"type": "ask", "ref": "long", "question": "Tell.", "max_new_tokens": 512})
        until(socket, "piece", ref="long")
        socket.send_json({"type": "cancel", "ref": "long"})
        socket.send_json({"type": "ask", "ref": "short", "question": "Tell.", "max_new_tokens": 2})
        assert until(socket, "done")["ref"] == "short"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "no JSON"),
        ("[]", "JSON object"),
        ('{"type": "dance"}', "no message type"),
        ('{"type": "ask", "question": ""}', "question"),
        ('{"type": "ask", "question": "x", "more": 1}', "more"),
        ('{"type": "ask", "question": "x", "temperature": -1}', "temperature"),
        ('{"type": "skip", "to": -4}', "to"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_a_message_that_makes_no_sense_is_answered_and_survived(client, text, what):
    with stream(client, opened(client)) as socket:
        socket.receive_json()
        socket.send_text(text)
        assert what in until(socket, "error")["error"]["message"]
        socket.send_text(json.dumps({"type": "ping"}))
        until(socket, "pong")


def test_bytes_that_are_no_frame_end_the_connection_and_only_it(client):
    session = opened(client)
    with stream(client, session) as healthy:
        with stream(client, session) as socket:
            socket.receive_json()
            socket.send_bytes(b"GET / HTTP/1.1")
            with pytest.raises(WebSocketDisconnect) as closed:
                until(socket, "never")
            assert closed.value.code == 4400
        healthy.send_bytes(wire(0))
        assert until(healthy, "ack")["status"] == "watched"


def test_a_connection_ended_by_the_server_is_no_defect(client, monkeypatch):
    said = []
    close = Connection._close

    async def heard(self, code: int, reason: str) -> None:
        said.append((code, reason))
        await close(self, code, reason)

    def end() -> None:
        parts = [task for task in asyncio.all_tasks() if "_tell_news" in repr(task.get_coro())]
        assert len(parts) == 1 and parts[0].cancel()

    # What the test client raises depends on whether it reads the last message before the connection's task is gone.
    monkeypatch.setattr(Connection, "_close", heard)
    session = opened(client)
    with pytest.raises((CancelledError, WebSocketDisconnect)), stream(client, session) as socket:
        socket.receive_json()
        client.portal.call(end)
        until(socket, "never")
    assert said == [(1001, "the server is stopping")]


def test_a_stream_of_a_session_that_is_not_there_is_denied(client):
    with pytest.raises(WebSocketDisconnect) as denied, stream(client, "0" * 24):
        pass
    assert denied.value.status_code == 404


def test_an_answer_that_fails_for_a_reason_nobody_foresaw_is_told(client, caplog):
    session = opened(client)
    hosted = client.service.pool.open[session]
    with stream(client, session) as socket:
        socket.send_bytes(wire(0))
        until(socket, "ack")
        processor, hosted.session.processor = hosted.session.processor, None
        socket.send_json({"type": "ask", "ref": "q", "question": "How many?"})
        error = until(socket, "error", ref="q")["error"]
        assert (error["code"], "its log says why" in error["message"]) == ("defect", True)
        hosted.session.processor = processor
        socket.send_json({"type": "ask", "ref": "q2", "question": "How many?"})
        until(socket, "done", ref="q2")
    assert f"an answer of session {session} failed" in caplog.text
