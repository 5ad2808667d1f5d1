"""Requests that nobody would send: none may fail the server, and each is answered as documented."""

from __future__ import annotations

import json
import warnings

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from starlette.websockets import WebSocketDisconnect

from tests.serve.parts import ask, live, offline, opened, push, running, wire

schemathesis = pytest.importorskip("schemathesis")

FEW, MANY = 6, 400
"""Requests per operation: some 150 in every run, more than 10,000 with the slow tests."""


def fuzz(server, examples):
    """Send so many requests to every operation; how many there were."""
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    checks = [status_code_conformance, content_type_conformance, response_schema_conformance]
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    sent = 0
    from spatial_ttt.serve.client import Server

    with Server(server.url) as client:
        for result in schema.get_all_operations():
            operation = result.ok()

            @settings(
                max_examples=examples, deadline=None, derandomize=True, phases=[Phase.generate],
                suppress_health_check=list(HealthCheck), database=None,
            )  # fmt: skip
            @given(case=operation.as_strategy(), is_there=st.booleans())
            def attack(case, is_there):
                nonlocal sent
                if is_there:  # half of the requests are about something that exists
                    known = {"session_id": client.sessions, "snapshot_id": client.snapshots}
                    for name in known.keys() & (case.path_parameters or {}).keys():
                        case.path_parameters[name] = known[name]()[0]["id"]
                sent += 1
                response = case.call_and_validate(checks=checks)
                full = response.status_code == 503 and response.json()["error"]["code"] == "no_room"
                assert response.status_code < 500 or full
                if not client.sessions():
                    client.open(max_frames=20)
                if not client.snapshots():
                    client.session(client.sessions()[0]["id"]).snapshot()

            session = client.open("bait", max_frames=20)
            session.snapshot()
            attack()
        assert client.call("GET", "/healthz") == {"status": "ok"}
        for session in client.sessions():
            client.session(session["id"]).close()
        client.open()  # and it still works
    return sent


def fuzz_documented(tmp_path, examples):
    # Operations that take long answers are cut short, so that the run is about requests.
    limits = {"max_new_tokens": 4, "sessions_per_token": 10_000}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tool's own
        with live(tmp_path, limits=limits, max_state_bytes=1 << 40) as server:
            return fuzz(server, examples)


def test_documented_requests_with_any_values(tmp_path):
    assert fuzz_documented(tmp_path, FEW) >= 150


@pytest.mark.slow
def test_ten_thousand_documented_requests(tmp_path):
    assert fuzz_documented(tmp_path, MANY) >= 10_000


messages = st.one_of(
    st.binary(max_size=200),
    st.builds(lambda index, cut: wire(index % 20)[:cut], st.integers(0, 40), st.integers(0, 4700)),
    st.builds(
        lambda index, at, value: wire(index)[:at] + bytes([value]) + wire(index)[at + 1 :],
        st.integers(0, 20), st.integers(0, 23), st.integers(0, 255),
    ),
    st.text(max_size=100),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    ).map(json.dumps),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["ask", "skip", "cancel", "save", "ping", "x"])},
        optional={"ref": st.text(max_size=90) | st.integers(), "to": st.integers(),
                  "question": st.text(max_size=20), "temperature": st.floats(),
                  "max_new_tokens": st.integers(-2, 3)},
    ).map(json.dumps),
)  # fmt: skip


def fuzz_sockets(tmp_path, examples):
    """Any messages over a WebSocket; a session beside it is not disturbed."""
    with running(tmp_path, limits={"sessions_per_token": 100_000}) as client:
        healthy = opened(client)
        push(client, healthy, 0, 1)

        @settings(
            max_examples=examples, deadline=None, derandomize=True, database=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(st.lists(messages, min_size=1, max_size=6))
        def attack(sent):
            session = opened(client, max_frames=20)
            try:
                with client.websocket_connect(f"/v1/sessions/{session}/stream") as socket:
                    for message in sent:
                        socket.send_bytes(message) if isinstance(
                            message, bytes
                        ) else socket.send_text(message)
                    socket.send_text('{"type": "ping"}')
                    while json.loads(socket.receive_text())["type"] != "pong":
                        pass
            except WebSocketDisconnect as closed:
                assert closed.code == 4400
            assert client.delete(f"/v1/sessions/{session}").status_code == 204

        attack()
        push(client, healthy, 2)
        expected = "".join(offline(3).ask("How many?", ask_short()))
        assert ask(client, healthy)["answer"] == expected
        assert client.service.pool.ledger.promised == client.service.pool.ledger.of(healthy)


def ask_short():
    from spatial_ttt.generate import Decoding

    return Decoding(max_new_tokens=12)


def test_any_message_over_a_websocket(tmp_path):
    fuzz_sockets(tmp_path, 60)


@pytest.mark.slow
def test_many_messages_over_a_websocket(tmp_path):
    fuzz_sockets(tmp_path, 3000)
