"""Sources that the server watches itself: walks through procedural homes, a camera that drops."""

from __future__ import annotations

import json

import numpy as np
import pytest

from spatial_ttt.serve.records import WalkSpec
from tests.serve.parts import ask, opened, push, running, wait_for
from tests.video.test_live import Camera, needs_rtsp

walks = pytest.importorskip("spatial_ttt.serve.walks", reason="the scenes extra is not installed")

WALK = {"walk": 3, "fps": 2, "seconds": 4}


def shown(client, session):
    return client.get(f"/v1/sessions/{session}").json()


def events_of(answer):
    lines = [line for line in answer.text.split("\n\n") if line]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_a_walk_is_watched_and_its_plan_is_known(tmp_path):
    with running(tmp_path) as client:
        session = opened(client)
        answer = client.post(f"/v1/sessions/{session}/source", json=WALK)
        assert answer.json()["source"] == "walk 3"
        assert client.post(f"/v1/sessions/{session}/source", json=WALK).status_code == 409
        wait_for(lambda: shown(client, session)["source"] is None, 60)
        seen = shown(client, session)
        assert (seen["num_frames"], seen["seconds_seen"]) == (8, 3.5)
        jpeg = client.get(f"/v1/sessions/{session}/frame")
        assert jpeg.headers["content-type"] == "image/jpeg"
        assert jpeg.content.startswith(b"\xff\xd8")
        plan = client.get(f"/v1/sessions/{session}/plan").json()
        home, camera = walks._home_and_camera(WalkSpec(**seen["walk"]))
        assert len(plan["objects"]) == len(home.scene.objects) > 5
        np.testing.assert_allclose(
            np.array(plan["path"])[:, 1:], camera.camera_to_world[:, :2, 3], atol=1e-3
        )
        body = {"categories": ["chair", "table"]}
        events = events_of(client.post(f"/v1/sessions/{session}/map", json=body))
        assert [e["type"] for e in events[:2]] == ["count", "count"]
        assert events[-1]["type"] == "map"
        assert shown(client, session)["num_frames"] == 8  # asking changed nothing
        assert client.post(f"/v1/sessions/{session}/source", json=WALK).status_code == 409


def test_a_source_can_be_stopped_and_dies_with_its_session(tmp_path):
    with running(tmp_path) as client:
        session = opened(client)
        slow = WALK | {"seconds": 600, "pace": 1}
        client.post(f"/v1/sessions/{session}/source", json=slow)
        wait_for(lambda: shown(client, session)["num_frames"] >= 2, 60)
        assert client.delete(f"/v1/sessions/{session}/source").status_code == 204
        assert shown(client, session)["source"] is None
        other = opened(client)
        client.post(f"/v1/sessions/{other}/source", json=slow)
        assert client.delete(f"/v1/sessions/{other}").status_code == 204
        wait_for(lambda: not client.service.sources._tasks)


def test_a_camera_has_a_name_that_its_operator_gave(tmp_path):
    with running(tmp_path, cameras={"hall": "rtsp://user:secret@127.0.0.1:9/live"}) as client:
        info = client.get("/v1/info")
        assert info.json()["cameras"] == ["hall"]
        assert "secret" not in info.text
        session = opened(client)
        where = f"/v1/sessions/{session}/source"
        assert client.post(where, json={"camera": "rtsp://127.0.0.1:9/x"}).status_code == 404
        assert client.post(where, json={"camera": "/etc/passwd"}).status_code == 404
        assert client.post(where, json={"camera": "hall"}).status_code == 200
        push(client, session, 0)  # a client may still send frames of its own
        assert client.delete(where).status_code == 204


@needs_rtsp
def test_a_camera_that_drops_is_watched_again_and_the_session_goes_on(tmp_path):
    camera = Camera()
    camera.start()
    try:
        with running(tmp_path, cameras={"hall": camera.url}) as client:
            session = opened(client)
            where = f"/v1/sessions/{session}"
            with client.websocket_connect(f"{where}/stream") as news:
                client.post(f"{where}/source", json={"camera": "hall", "fps": 10})
                wait_for(lambda: shown(client, session)["num_frames"] >= 5, 30)
                camera.kill()
                before = shown(client, session)["num_frames"]
                assert ask(client, session)["seen"] >= 4  # it can be asked while the camera is away
                camera.start()
                wait_for(lambda: shown(client, session)["num_frames"] >= before + 5, 30)
                while (message := news.receive_json())["type"] != "reconnected":
                    assert message["type"] in ("hello", "slot", "source", "saved")
                client.delete(f"{where}/source")
            notes = client.get(f"{where}/memory").json()["slots"]
        times = [note["time"] for note in notes]
        assert times == sorted(times)
        assert shown_refused(tmp_path, session) == 0
    finally:
        camera.kill()


def shown_refused(folder, session):
    record = json.loads((folder / "sessions" / f"{session}.json").read_text())
    return record["refused"]
