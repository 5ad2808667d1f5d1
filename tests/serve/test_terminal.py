"""`spatial-ttt connect` against a real server."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys

import pytest

from spatial_ttt.cli import main
from spatial_ttt.cli.serve import parse_bytes, parse_cameras
from spatial_ttt.serve.client import Server
from spatial_ttt.serve.server import room_warning
from spatial_ttt.video import Frame
from spatial_ttt.video.writing import write_mp4
from tests.serve.parts import ANN, live, pixels, running, tokens_file


@pytest.fixture
def walk(tmp_path):
    path = tmp_path / "walk.mp4"
    write_mp4(str(path), [Frame(pixels(i), i / 4) for i in range(12)])
    return str(path)


def typed(monkeypatch, *lines):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\n"))


def test_a_video_is_sent_and_asked_about(tmp_path, walk, monkeypatch, capsys):
    with live(tmp_path) as server:
        typed(
            monkeypatch,
            "How many?",
            "",
            ":stats",
            ":keep",
            ":save",
            ":fork",
            ":list",
            ":what",
            ":quit",
            "x",
        )
        assert (
            main(["connect", server.url, "--watch", walk, "--fps", "4", "--max-new-tokens", "6"])
            == 0
        )
        out, err = capsys.readouterr()
        with Server(server.url) as client:
            twin, session = client.sessions()
            answer = client.session(session["id"]).answer("How many?", max_new_tokens=6)["answer"]
        assert out == answer + "\n"  # answers only, and only one question was asked
        assert (session["num_frames"], twin["origin"]) == (12, session["id"])
        for text in (
            "num_frames         12",
            "promised_bytes     ",
            " MB\n",
            "snapshot ",
            "safe to frame 11",
            "now in session",
            "no command :what",
        ):
            assert text in err


def test_a_session_is_taken_up_again_with_a_token_from_the_environment(
    tmp_path, walk, monkeypatch, capsys
):
    with live(tmp_path, token_file=tokens_file(tmp_path)) as server:
        monkeypatch.setenv("SPATIAL_TTT_TOKEN", ANN)
        with Server(server.url, ANN) as client:
            session = client.open()
            for _ in range(2):
                typed(monkeypatch, "")
                command = ["connect", server.url, "--session", session.session_id, "--watch", walk]
                assert main([*command, "--fps", "4"]) == 0
            stats = session.stats()
    assert stats["num_frames"] == 24
    assert stats["seconds_seen"] == pytest.approx(2.75 + 0.1 + 2.75)


def test_mistakes_are_one_sentence(tmp_path, monkeypatch, capsys):
    typed(monkeypatch, "?")
    assert main(["connect", "http://127.0.0.1:9"]) == 1
    assert capsys.readouterr().err.startswith("error: http://127.0.0.1:9 cannot be reached")
    with live(tmp_path) as server:
        assert main(["connect", server.url, "--watch", str(tmp_path / "none.mp4")]) == 1
        assert "does not exist" in capsys.readouterr().err
    assert main(["serve", "--max-state-bytes", "lots"]) == 2
    assert "no number of bytes" in capsys.readouterr().err
    assert main(["serve", "--host", "0.0.0.0"]) == 1
    assert "--token-file" in capsys.readouterr().err


def test_what_cannot_be_served_is_said_before_the_model_loads(tmp_path, capsys):
    folder = ["serve", "--model", str(tmp_path / "never opened"), "--snapshot-dir", str(tmp_path)]
    with live(tmp_path) as server:
        assert main([*folder, "--port", str(server.port)]) == 1
        error = capsys.readouterr().err
        assert f"cannot listen on 127.0.0.1 port {server.port}: Address already in use" in error
        assert "--port" in error
    (tmp_path / "tokens").write_text("")
    assert main([*folder, "--port", "0", "--token-file", str(tmp_path / "tokens")]) == 1
    assert "token" in capsys.readouterr().err
    (tmp_path / "no.pem").write_text("no certificate")
    pem = str(tmp_path / "no.pem")
    assert main([*folder, "--port", "0", "--tls-cert", pem, "--tls-key", pem]) == 1
    assert "both are PEM files that belong together" in capsys.readouterr().err
    assert main([*folder, "--port", "0", "--tls-cert", "/none", "--tls-key", "/none"]) == 1
    assert "No such file" in capsys.readouterr().err
    assert main([*folder, "--host", "no host", "--insecure"]) == 1
    assert "no host is no address of this machine" in capsys.readouterr().err


def test_a_server_says_where_it_is_and_what_it_kept(tmp_path):
    command = [sys.executable, "-m", "spatial_ttt", "serve", "--port", "0", "--decoders", "1"]
    command += ["--snapshot-dir", str(tmp_path), "--max-state-bytes", "50M", "--anchor-bytes", "7M"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        said = [server.stderr.readline(), server.stderr.readline()]
        url = re.search(r"serves \w+ on (http://127\.0\.0\.1:\d+) ", said[0])[1]
        assert said[1] == f"sessions outlive it in {tmp_path}: 0 there now\n"
        with Server(url) as client:
            client.open("kept")
    finally:
        server.send_signal(signal.SIGINT)
        rest = server.communicate(timeout=120)[1]
    assert (server.returncode, rest) == (130, f"stopped: 1 session saved in {tmp_path}\n")


def test_a_budget_without_room_for_one_session_is_told(tmp_path):
    with running(tmp_path, max_state_bytes=1000) as client:
        assert "NO SESSION FITS" in room_warning(client.service)
        answer = client.post("/v1/sessions", json={})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_room")
    with running(tmp_path) as client:
        assert room_warning(client.service) is None


def test_sizes_and_cameras_are_read():
    assert [parse_bytes(t) for t in ("7", "2k", "1.5M", "3GiB", "4GB")] == [
        7, 2048, 3 << 19, 3 << 30, 4 << 30
    ]  # fmt: skip
    assert parse_cameras(["hall=rtsp://a/b?c=d", "desk=camera:0"]) == {
        "hall": "rtsp://a/b?c=d",
        "desk": "camera:0",
    }
