"""What goes wrong in the field, with real processes, sockets, files and limits."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx
import pytest
import torch

from spatial_ttt.errors import SessionError
from spatial_ttt.serve.client import Server
from tests.serve.parts import (
    ask,
    expected,
    live,
    loaded,
    opened,
    pixels,
    png,
    push,
    running,
    wait_for,
    wire,
)

HANDSHAKE = (
    "GET /v1/sessions/{session}/stream HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Version: 13\r\n\r\n"
)


def masked(payload, opcode=2):
    """A WebSocket frame as a client sends it, with a mask of zeros."""
    size = len(payload)
    head = bytes([0x80 | opcode])
    head += bytes([0x80 | 126]) + size.to_bytes(2, "big") if size < 65536 else (
        bytes([0x80 | 127]) + size.to_bytes(8, "big"))  # fmt: skip
    return head + bytes(4) + payload


@contextmanager
def raw_socket(server, session):
    """A WebSocket spoken by hand, past its handshake."""
    line = socket.create_connection(("127.0.0.1", server.port))
    try:
        line.sendall(HANDSHAKE.format(session=session, port=server.port).encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += line.recv(4096)
        assert b" 101 " in answer
        yield line
    finally:
        line.close()


# --- Clients ---------------------------------------------------------------------------------------


def test_a_client_that_dies_in_the_middle_of_a_frame_changes_nothing(tmp_path):
    with live(tmp_path) as server, Server(server.url) as client:
        session = client.open()
        with raw_socket(server, session.session_id) as line:
            for index in range(3):
                line.sendall(masked(wire(index)))
            line.sendall(masked(wire(3))[:700])  # half of frame 3
            wait_for(lambda: session.stats()["next"] == 3)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # RST
        wait_for(lambda: server.service.pool.open[session.session_id].users == 0)
        assert session.stats()["next"] == 3
        assert session.answer("How many?", max_new_tokens=12)["answer"] == expected(3)
        with session.stream(quality=None) as frames:
            for index in range(3, 6):
                frames.send(pixels(index), index / 2)
        assert session.answer("How many?", max_new_tokens=12)["answer"] == expected(6)


def test_a_slow_reader_is_dropped_and_slows_nobody_else(tmp_path):
    with live(tmp_path, limits={"send_timeout_s": 1.0}) as server, Server(server.url) as client:
        slow, quick = client.open("slow"), client.open("quick")
        with raw_socket(server, slow.session_id) as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.settimeout(0.2)
            ping = masked(json.dumps({"type": "dance", "ref": "x" * 80}).encode() + b" " * 100, 1)
            hosted = server.service.pool.open[slow.session_id]
            deadline = time.monotonic() + 120
            while hosted.users:  # fills both sides' buffers with answers it never reads
                assert time.monotonic() < deadline
                try:
                    line.sendall(ping * 200)
                except (TimeoutError, OSError):
                    continue
            started = time.monotonic()
            with quick.stream(quality=None) as frames:
                for index in range(6):
                    frames.send(pixels(index), index / 2)
            assert time.monotonic() - started < 60
        assert quick.answer("How many?", max_new_tokens=12)["answer"] == expected(6)
        assert slow.stats()["state"] == "open"


def test_a_reader_who_leaves_in_the_middle_of_an_answer_frees_its_fork(tmp_path):
    with live(tmp_path) as server, Server(server.url) as client:
        session = client.open()
        with session.stream(quality=None) as frames:
            for index in range(4):
                frames.send(pixels(index), index / 2)
        for _ in range(3):
            pieces = session.ask("Tell me everything.", max_new_tokens=500)
            next(pieces)
            pieces.close()
        wait_for(lambda: server.service.steps.waiting == 0)
        assert session.answer("How many?", max_new_tokens=12)["answer"] == expected(4)


# --- The model -------------------------------------------------------------------------------------


@contextmanager
def failing(pool, session, times):
    """The model runs out of memory over the next frames of a session, so many times."""
    hosted, left = pool.open[session], [times]
    observe = hosted.session.observe

    def fail(frames):
        if left[0] > 0:
            left[0] -= 1
            raise torch.OutOfMemoryError("no memory is left on the device")
        return observe(frames)

    hosted.session.observe = fail
    try:
        yield left
    finally:
        hosted.session.observe = observe


def test_a_device_out_of_memory_costs_time_and_no_frame(tmp_path):
    with live(tmp_path) as server, Server(server.url) as client:
        session = client.open(clock="mend")
        with session.stream(quality=None) as frames:
            frames.send(pixels(0), 0.0)
            frames.flush()
            with failing(server.service.pool, session.session_id, 3) as left:
                for index in range(1, 6):
                    frames.send(pixels(index), index / 2)
                frames.flush()
            assert left == [0]
        shown = session.stats()
        assert (shown["num_frames"], shown["seconds_seen"], frames.lost) == (6, 2.5, [])
        assert session.answer("How many?", max_new_tokens=12)["answer"] == expected(6)
        assert client.call("GET", "/healthz") == {"status": "ok"}


def test_a_server_that_fails_over_and_over_is_given_up_with_the_frame(tmp_path):
    with live(tmp_path) as server, Server(server.url) as client:
        session = client.open()
        with (
            failing(server.service.pool, session.session_id, 10**9),
            pytest.raises(SessionError, match="failed 5 times over frame 0; its log says why"),
            session.stream(quality=None) as frames,
        ):
            frames.send(pixels(0), 0.0)
            frames.flush()
        with session.stream(quality=None) as frames:
            frames.send(pixels(0), 0.0)
        assert session.answer("How many?", max_new_tokens=12)["answer"] == expected(1)


def test_a_defect_has_the_shape_of_every_refusal(tmp_path):
    with live(tmp_path) as server, Server(server.url) as client:
        session = client.open()
        where = f"{server.url}/v1/sessions/{session.session_id}/frames/0"
        with failing(server.service.pool, session.session_id, 1):
            answer = httpx.put(where, content=png(0), headers={"content-type": "image/png"})
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "defect"
        assert "no memory" not in answer.text  # what went wrong inside is for the log
        assert session.stats()["next"] == 0


# --- The server ------------------------------------------------------------------------------------


class Process:
    """`spatial-ttt serve` as a process of its own."""

    def __init__(self, model, folder, port=0):
        command = [
            sys.executable, "-m", "spatial_ttt", "serve", "--model", str(model), "--port", str(port),
            "--snapshot-dir", str(folder), "--snapshot-seconds", "1e6", "--decoders", "1",
        ]  # fmt: skip
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{port}"
        with Server(self.url) as client:
            wait_for(lambda: self._is_up(client), 60)

    def _is_up(self, client):
        assert self.process.poll() is None, self.process.stderr.read()
        try:
            return client.call("GET", "/healthz")
        except Exception:
            return None

    def end(self, how):
        self.process.send_signal(how)
        self.process.wait(timeout=30)
        self.process.stderr.close()
        return self.process.returncode


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The small model as a folder."""
    folder = tmp_path_factory.mktemp("model")
    loaded().model.save_pretrained(str(folder))
    loaded().processor.save_pretrained(folder)
    return folder


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_killed_server_loses_what_was_not_saved_and_the_client_knows_which(tmp_path, checkpoint):
    """SIGKILL in the middle of a slot, twice: with a buffer nothing is lost, without one it is told what."""
    port, folder = free_port(), tmp_path / "sessions"
    server = Process(checkpoint, folder, port)
    client = Server(server.url)
    careful, careless = client.open("careful"), client.open("careless")
    one = careful.stream(quality=None, give_up_s=60)
    two = careless.stream(quality=None, give_up_s=60, buffer_bytes=1, frames_ahead=1)
    for frames in (one, two):
        for index in range(5):
            frames.send(pixels(index), index / 2)
        frames.flush(saved=True)
        for index in range(5, 10):  # 4 | 5 6 | 7 8 | 9: killed within a slot
            frames.send(pixels(index), index / 2)
        frames.flush()
        assert (frames.seen, frames.saved) == (9, 4)
    server.end(signal.SIGKILL)
    server = Process(checkpoint, folder, port)
    try:
        for frames in (one, two):
            for index in range(10, 13):
                frames.send(pixels(index), index / 2)
            frames.close()
        assert (one.lost, two.lost) == ([], [(5, 8)])  # only the newest frame was still at hand
        assert careful.answer("How many?", max_new_tokens=12)["answer"] == expected(13)
        shown = careless.stats()
        assert (shown["num_frames"], shown["skipped"], shown["next"]) == (9, 4, 13)
    finally:
        code = server.end(signal.SIGTERM)
    assert code in (0, -signal.SIGTERM)
    # A server that was asked to stop saves every open session, also those nobody saved by hand.
    client.close()
    with live(tmp_path) as next_server, Server(next_server.url) as client:
        careful = client.session(careful.session_id)
        shown = careful.stats()
        assert (shown["state"], shown["saved"]) == ("asleep", 12)
        with careful.stream(quality=None) as frames:
            frames.send(pixels(13), 6.5)
        assert careful.answer("How many?", max_new_tokens=12)["answer"] == expected(14)


@pytest.mark.parametrize("leap_s", [-1e6, 1e6])
def test_a_wall_clock_that_leaps_neither_stops_nor_hastens_anything(tmp_path, monkeypatch, leap_s):
    """The machine's date is set while the server runs: saving, sleeping and limits go by a steady clock."""
    true_time = time.time
    with running(tmp_path, snapshot_s=0.2, idle_s=600) as client:
        session = opened(client)
        push(client, session, 0, 1)
        monkeypatch.setattr(time, "time", lambda: true_time() + leap_s)
        push(client, session, 2, 3)
        shown = wait_for(
            lambda: (view := client.get(f"/v1/sessions/{session}").json())["saved"] == 3 and view
        )
        assert abs(shown["saved_at"] - true_time() - leap_s) < 60  # it is told by the new date
        assert shown["state"] == "open"
    monkeypatch.setattr(time, "time", true_time)
    with running(tmp_path, idle_s=0.2) as client:
        push(client, session, 4)
        monkeypatch.setattr(time, "time", lambda: true_time() + leap_s)
        wait_for(lambda: client.get(f"/v1/sessions/{session}").json()["state"] == "asleep")
        assert ask(client, session)["answer"] == expected(5)


def test_two_servers_never_share_a_folder(tmp_path):
    from spatial_ttt.errors import ConfigError

    with running(tmp_path), pytest.raises(ConfigError, match="another server"), running(tmp_path):
        pass
    with running(tmp_path):
        pass
