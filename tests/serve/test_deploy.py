"""Several workers behind a real proxy: an owner stays on one of them, and can be handed over."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from spatial_ttt.generate import Decoding
from spatial_ttt.serve import caretaker
from spatial_ttt.serve.client import Server
from tests.serve.parts import live, offline, pixels, wait_for

DEPLOY = Path(__file__).parents[2] / "deploy"
HAPROXY = shutil.which("haproxy") or "/usr/sbin/haproxy"
OWNERS = [f"owner{n}" for n in range(6)]


def token(owner):
    return f"{owner}-0123456789abcdef"


@contextmanager
def proxy(*workers):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    places = {f"WORKER{n}": f"127.0.0.1:{w.port}" for n, w in enumerate(workers, start=1)}
    process = subprocess.Popen(
        [HAPROXY, "-db", "-f", str(DEPLOY / "haproxy.cfg")],
        env=os.environ | places | {"PUBLIC": address},
    )
    try:
        with Server(f"http://{address}") as client:
            wait_for(lambda: is_up(client))
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(timeout=20)


def is_up(client):
    try:
        return client.call("GET", "/healthz")
    except Exception:
        return None


def expected(count):
    return "".join(offline(count).ask("How many?", Decoding(max_new_tokens=12)))


@pytest.mark.skipif(not Path(HAPROXY).exists(), reason="HAProxy is not installed")
def test_an_owner_stays_on_one_worker_and_is_handed_over_by_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(caretaker, "_LOOK_S", 0.5)
    tokens = tmp_path / "tokens"
    tokens.write_text("".join(f"{owner} {token(owner)}\n" for owner in OWNERS))
    tokens.chmod(0o600)
    one, two = tmp_path / "one", tmp_path / "two"
    with live(two, token_file=tokens) as second:
        with live(one, token_file=tokens) as first, proxy(first, second) as url:
            sessions = {}
            for owner in OWNERS:
                with Server(url, token(owner)) as server:
                    sessions[owner] = server.open(owner).session_id
                    with server.session(sessions[owner]).stream(quality=None) as frames:
                        for index in range(4):
                            frames.send(pixels(index), index / 2)
                    assert [s["id"] for s in server.sessions()] == [sessions[owner]]
            spread = [len(first.service.pool.open), len(second.service.pool.open)]
            assert sum(spread) == len(OWNERS) and min(spread) >= 1
            moving = [o for o in OWNERS if sessions[o] in first.service.pool.open]
            with Server(f"http://127.0.0.1:{first.port}", token(moving[0])) as direct:
                slept = direct.call("POST", f"/v1/sessions/{sessions[moving[0]]}/sleep")
                assert (slept["state"], slept["saved"]) == ("asleep", 3)
            second_port = second.port
        # The first worker has stopped and saved everything: its files go to the second, states first.
        for pattern in ("*.safetensors", "*.json"):
            for path in (one / "sessions").glob(pattern):
                path.rename(two / "sessions" / path.name)
        for owner in OWNERS:
            with Server(f"http://127.0.0.1:{second_port}", token(owner)) as server:
                wait_for(lambda s=server: s.sessions())
                session = server.session(sessions[owner])
                assert session.answer("How many?", max_new_tokens=12)["answer"] == expected(4)
                with session.stream(quality=None) as frames:
                    frames.send(pixels(4), 2.0)
                assert session.answer("How many?", max_new_tokens=12)["answer"] == expected(5)


def test_files_that_are_taken_away_take_their_sessions_with_them(tmp_path):
    with live(tmp_path) as server, Server(server.url) as client:
        session = client.open()
        client.call("POST", f"/v1/sessions/{session.session_id}/sleep")
        for path in (tmp_path / "sessions").glob(f"{session.session_id}*"):
            path.unlink()
        wait_for(lambda: not client.sessions())
