"""The Python client against a real server on a real port."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from spatial_ttt.errors import SessionClosed, SessionError, VideoError
from spatial_ttt.generate import Decoding
from spatial_ttt.serve.client import Server, ServerError
from spatial_ttt.serve.client_stream import encode
from spatial_ttt.serve.frames import Encoding
from tests.serve.parts import ANN, live, offline, pixels, png, tokens_file, wait_for

SHORT = Decoding(max_new_tokens=12)


def expected(count):
    return "".join(offline(count).ask("How many?", SHORT))


def test_stream_ask_fork_keep_restore_close(tmp_path):
    with live(tmp_path) as live_server, Server(live_server.url) as server:
        session = server.open("hall", max_frames=50)
        with session.stream(quality=None) as frames:
            for index in range(5):
                assert frames.send(pixels(index), index / 2) == index
            frames.flush(saved=True)
            assert (frames.seen, frames.saved, frames.lost, frames.refused) == (4, 4, [], {})
        assert "".join(session.ask("How many?", max_new_tokens=12)) == expected(5)
        assert session.answer("How many?", max_new_tokens=12)["answer"] == expected(5)
        kept = session.snapshot("point")
        twin = session.fork("twin")
        with twin.stream(quality=None) as frames:
            frames.send(png(5), 2.5)
        restored = server.restore(kept)
        assert twin.answer("How many?", max_new_tokens=12)["answer"] == expected(6)
        assert restored.answer("How many?", max_new_tokens=12)["answer"] == expected(5)
        assert {s["id"] for s in server.sessions()} == {
            s.session_id for s in (session, twin, restored)
        }
        assert [s["name"] for s in server.snapshots()] == ["point"]
        twin.close()
        with pytest.raises(ServerError, match="no such session") as refused:
            twin.stats()
        assert (refused.value.status, refused.value.code) == (404, "not_found")
        assert server.info()["model"] == "small"


def test_a_corrupt_frame_is_told_by_its_id(tmp_path):
    with live(tmp_path) as live_server, Server(live_server.url) as server:
        session = server.open()
        with session.stream() as frames:
            frames.send(png(0), 0.0)
            frames.send(png(1)[:-40], 0.5)
            frames.send(png(2), 1.0)
        assert list(frames.refused) == [1]
        assert "damaged" in frames.refused[1]
        assert session.stats()["num_frames"] == 2


def test_a_lost_connection_is_opened_again_and_nothing_is_missing(tmp_path):
    with live(tmp_path) as live_server, Server(live_server.url) as server:
        session = server.open()
        with session.stream(quality=None) as frames:
            for index in range(12):
                if index in (4, 9):  # the line breaks, frames in flight with it
                    wait_for(lambda least=index - 3: frames.seen >= least)
                    frames._connection.socket.shutdown(2)
                frames.send(pixels(index), index / 2)
        assert frames.lost == []
        assert session.answer("How many?", max_new_tokens=12)["answer"] == expected(12)


def test_a_full_session_stops_the_stream_with_the_reason(tmp_path):
    with live(tmp_path) as live_server, Server(live_server.url) as server:
        session = server.open(max_frames=2)
        with pytest.raises(SessionError, match="budget"), session.stream() as frames:
            for index in range(2000):
                frames.send(pixels(0), index / 2)


def test_a_token_travels_with_everything(tmp_path):
    with live(tmp_path, token_file=tokens_file(tmp_path)) as live_server:
        with Server(live_server.url, ANN) as server:
            session = server.open()
            with session.stream() as frames:
                frames.send(pixels(0), 0.0)
            assert "".join(session.ask("?", max_new_tokens=4))
        with Server(live_server.url) as nobody:
            with pytest.raises(ServerError, match="known token"):
                nobody.sessions()
            with pytest.raises(SessionClosed, match="401"):
                nobody.session(session.session_id).stream()


def test_a_server_that_is_not_there_is_an_error_that_says_so():
    with Server("http://127.0.0.1:9") as server:
        with pytest.raises(SessionError, match="spatial-ttt serve"):
            server.sessions()
        with pytest.raises(SessionError, match="cannot be reached"):
            server.session("0" * 24).stream()


def test_a_closed_session_ends_its_stream(tmp_path):
    with live(tmp_path) as live_server, Server(live_server.url) as server:
        session = server.open()
        frames = session.stream()
        frames.send(pixels(0), 0.0)
        frames.flush()
        session.close()
        with pytest.raises(SessionError):
            for index in range(1, 100):
                frames.send(pixels(index), index / 2)
                frames.flush()
        frames.close()


def test_many_threads_may_ask_while_frames_come(tmp_path):
    with live(tmp_path) as live_server, Server(live_server.url) as server:
        session = server.open()
        answers = []

        def question():
            answers.append(session.answer("How many?", max_new_tokens=12))

        with session.stream(quality=None) as frames:
            frames.send(pixels(0), 0.0)
            frames.flush()
            threads = [threading.Thread(target=question) for _ in range(6)]
            for index in range(1, 13):
                frames.send(pixels(index), index / 2)
                if index % 2 == 0:
                    threads[index // 2 - 1].start()
            for thread in threads:
                thread.join()
        for answer in answers:
            assert answer["answer"] == expected(answer["seen"] + 1)
        wait_for(lambda: live_server.service.steps.waiting == 0)


def test_pictures_are_encoded_as_asked():
    assert encode(png(0), 90) == (Encoding.PNG, png(0))
    kind, content = encode(pixels(0), 90)
    assert kind == Encoding.JPEG and content.startswith(b"\xff\xd8")
    assert encode(content, None) == (Encoding.JPEG, content)
    with pytest.raises(VideoError, match="no JPEG or PNG"):
        encode(b"BM....", 90)
    with pytest.raises(VideoError, match="dtype"):
        encode(np.zeros((4, 4, 3)), 90)
