"""Sessions over HTTP: what is pushed is what is asked, in order, once, and within the budget."""

from __future__ import annotations

import json
import time

from spatial_ttt.generate import Decoding
from spatial_ttt.serve.budget import session_budget
from tests.serve.parts import ask, loaded, offline, opened, png, push, running

SHORT = Decoding(max_new_tokens=12)


def test_an_answer_over_http_is_the_session_own_answer(tmp_path):
    with running(tmp_path) as client:
        session = opened(client, name="kitchen")
        acks = push(client, session, *range(7))
        answer = ask(client, session)
    expected = "".join(offline(7).ask("How many?", SHORT))
    assert expected
    assert answer["answer"] == expected
    assert (answer["seen"], answer["seconds_seen"]) == (6, 3.0)
    assert [a["status"] for a in acks] == ["watched"] * 7
    assert [a["slots"] for a in acks] == [0, 1, 1, 2, 2, 3, 3]
    assert [a["note"] is not None for a in acks] == [False, True] * 3 + [False]


def test_a_streamed_answer_says_the_same_piece_by_piece(tmp_path):
    with running(tmp_path) as client:
        session = opened(client)
        push(client, session, *range(4))
        whole = ask(client, session)["answer"]
        body = {"question": "How many?", "max_new_tokens": 12}
        with client.stream("POST", f"/v1/sessions/{session}/ask", json=body) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = [line for line in answer.iter_lines() if line]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert [e["type"] for e in events[:1] + events[-1:]] == ["start", "done"]
    assert "".join(e["text"] for e in events[1:-1]) == whole == events[-1]["answer"]


def test_asking_changes_nothing(tmp_path):
    with running(tmp_path) as client:
        session = opened(client)
        push(client, session, 0, 1, 2)
        first = ask(client, session)
        assert ask(client, session)["answer"] == first["answer"]
        push(client, session, 3, 4)
        expected = "".join(offline(5).ask("How many?", SHORT))
        assert ask(client, session)["answer"] == expected


def test_a_frame_sent_twice_is_watched_once(tmp_path):
    with running(tmp_path) as client:
        session = opened(client)
        acks = push(client, session, 0, 1, 1, 0, 2)
        assert [a["status"] for a in acks] == [
            "watched",
            "watched",
            "duplicate",
            "duplicate",
            "watched",
        ]
        shown = client.get(f"/v1/sessions/{session}").json()
        assert (shown["num_frames"], shown["next"]) == (3, 3)


def test_a_gap_is_refused_and_says_what_is_missing(tmp_path):
    with running(tmp_path) as client:
        session = opened(client)
        push(client, session, 0)
        answer = client.put(
            f"/v1/sessions/{session}/frames/3",
            content=png(3),
            headers={"content-type": "image/png"},
        )
        assert answer.status_code == 409
        error = answer.json()["error"]
        assert (error["code"], error["expected"], error["missing"]) == ("gap", 1, [1, 2])
        skipped = client.post(f"/v1/sessions/{session}/skip", json={"to": 3}).json()
        assert (skipped["status"], skipped["seen"]) == ("skipped", 2)
        push(client, session, 3)
        assert client.get(f"/v1/sessions/{session}").json()["skipped"] == 2


def test_a_corrupt_frame_is_left_out_and_the_stream_goes_on(tmp_path):
    with running(tmp_path) as client:
        session = opened(client)
        push(client, session, 0, 1)
        where = f"/v1/sessions/{session}/frames/2"
        answer = client.put(where, content=png(2)[:-40], headers={"content-type": "image/png"})
        assert answer.json()["status"] == "refused"
        assert "damaged" in answer.json()["error"]
        push(client, session, 3, 4)
        shown = client.get(f"/v1/sessions/{session}").json()
        assert (shown["num_frames"], shown["refused"], shown["next"]) == (4, 1, 5)


def test_no_room_is_a_503_with_the_budget_and_hurts_nobody(tmp_path):
    price = session_budget(loaded()).bytes_for(1000)
    with running(tmp_path, max_state_bytes=2 * price + price // 2) as client:
        first, second = opened(client), opened(client)
        push(client, first, 0, 1)
        answer = client.post("/v1/sessions", json={})
        assert answer.status_code == 503
        error = answer.json()["error"]
        assert (error["code"], error["wanted_bytes"], error["free_bytes"]) == (
            "no_room",
            price,
            price // 2,
        )
        assert "retry-after" in answer.headers
        assert client.post(f"/v1/sessions/{first}/fork", json={}).status_code == 503
        push(client, first, 2, 3)
        assert client.post("/v1/sessions", json={"max_frames": 10}).status_code == 201
        assert client.delete(f"/v1/sessions/{second}").status_code == 204
        opened(client)


def test_a_full_session_refuses_frames_and_can_still_be_asked(tmp_path):
    with running(tmp_path) as client:
        session = opened(client, max_frames=20)
        status = 200
        for index in range(2000):
            answer = client.put(
                f"/v1/sessions/{session}/frames/{index}",
                params={"time": index / 2, "height": 32, "width": 48},
                content=bytes(32 * 48 * 3),
                headers={"content-type": "application/octet-stream"},
            )
            status = answer.status_code
            if status != 200:
                break
        assert status == 413
        assert answer.json()["error"]["code"] == "budget"
        shown = client.get(f"/v1/sessions/{session}").json()
        assert 20 <= shown["num_frames"] < 2000
        assert shown["next"] == index  # the refused frame may come again
        assert shown["stats"]["state_bytes"] <= shown["promised_bytes"]
        assert ask(client, session)["seen"] == index - 1


def test_what_is_promised_covers_what_is_used(tmp_path):
    budget = session_budget(loaded())
    for count in (1, 2, 9, 60):
        assert offline(count).stats().state_bytes <= budget.bytes_for(count)


def test_bounded_anchors_keep_a_session_at_one_price(tmp_path):
    with running(tmp_path, anchor_bytes=400_000) as client:
        session = opened(client, max_frames=4)
        push(client, session, *range(40))
        shown = client.get(f"/v1/sessions/{session}").json()
        assert shown["num_frames"] == 40
        assert shown["promised_bytes"] == session_budget(loaded(), 400_000).bytes_for(10**9)


def test_a_fork_goes_its_own_way(tmp_path):
    with running(tmp_path) as client:
        session = opened(client, name="trunk")
        push(client, session, 0, 1, 2)
        answer = client.post(f"/v1/sessions/{session}/fork", json={"name": "branch"})
        assert answer.status_code == 201
        twin = answer.json()
        assert (twin["origin"], twin["next"], twin["name"]) == (session, 3, "branch")
        push(client, session, 3, 4, 5)
        assert ask(client, twin["id"])["answer"] == "".join(offline(3).ask("How many?", SHORT))
        push(client, twin["id"], 3)
        assert ask(client, twin["id"])["answer"] == "".join(offline(4).ask("How many?", SHORT))
        assert ask(client, session)["answer"] == "".join(offline(6).ask("How many?", SHORT))


def test_a_snapshot_can_be_restored_again_and_again(tmp_path):
    with running(tmp_path) as client:
        session = opened(client)
        push(client, session, 0, 1, 2)
        kept = client.post(f"/v1/sessions/{session}/snapshots", json={"name": "before"}).json()
        push(client, session, 3, 4)
        for _ in range(2):
            restored = client.post(f"/v1/snapshots/{kept['id']}/restore", json={}).json()
            assert (restored["next"], restored["name"]) == (3, "before")
            push(client, restored["id"], 3, 4)
            assert ask(client, restored["id"]) | {"seconds": 0} == ask(client, session) | {
                "seconds": 0
            }
        assert [s["id"] for s in client.get("/v1/snapshots").json()] == [kept["id"]]
        assert client.delete(f"/v1/snapshots/{kept['id']}").status_code == 204
        assert client.post(f"/v1/snapshots/{kept['id']}/restore", json={}).status_code == 404


def test_sessions_survive_a_restart_and_answer_as_if_nothing_happened(tmp_path):
    with running(tmp_path) as client:
        session = opened(client, name="hall")
        push(client, session, *range(5))
    with running(tmp_path) as client:
        (shown,) = client.get("/v1/sessions").json()
        assert (shown["id"], shown["state"], shown["next"], shown["saved"]) == (
            session,
            "asleep",
            5,
            4,
        )
        push(client, session, *range(5, 12))
        answer = ask(client, session)["answer"]
        slots = client.get(f"/v1/sessions/{session}/memory").json()["slots"]
    assert answer == "".join(offline(12).ask("How many?", SHORT))
    assert [slot["slot"] for slot in slots] == list(range(6))


def test_an_idle_session_sleeps_and_wakes_when_touched(tmp_path):
    with running(tmp_path, idle_s=0.2) as client:
        session = opened(client)
        push(client, session, 0, 1, 2)
        deadline = time.monotonic() + 20
        while client.get(f"/v1/sessions/{session}").json()["state"] == "open":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert client.service.pool.ledger.promised == 0
        assert ask(client, session)["answer"] == "".join(offline(3).ask("How many?", SHORT))


def test_sessions_that_change_are_saved_every_few_seconds(tmp_path):
    with running(tmp_path, snapshot_s=0.2) as client:
        session = opened(client)
        push(client, session, 0, 1, 2)
        deadline = time.monotonic() + 20
        while client.get(f"/v1/sessions/{session}").json()["saved"] != 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (ack,) = push(client, session, 3)
        assert (ack["seen"], ack["saved"]) == (3, 2)
        assert client.post(f"/v1/sessions/{session}/save").json()["saved"] == 3


def test_a_closed_session_is_gone_from_memory_and_disk(tmp_path):
    with running(tmp_path) as client:
        session = opened(client)
        push(client, session, 0, 1)
        client.post(f"/v1/sessions/{session}/save")
        assert client.delete(f"/v1/sessions/{session}").status_code == 204
        assert client.get(f"/v1/sessions/{session}").status_code == 404
        assert client.get("/v1/sessions").json() == []
        assert [p.name for p in (tmp_path / "sessions").iterdir()] == [".lock"]


def test_health_figures_and_documents(tmp_path):
    with running(tmp_path) as client:
        session = opened(client)
        push(client, session, 0, 1)
        ask(client, session)
        assert client.get("/healthz").json() == {"status": "ok"}
        figures = client.get("/metrics").text
        assert 'spatial_ttt_frames_total{status="watched"} 2.0' in figures
        assert 'spatial_ttt_answers_total{end="done"} 1.0' in figures
        assert 'spatial_ttt_sessions{state="open"} 1.0' in figures
        info = client.get("/v1/info").json()
        assert info["promised_bytes"] == info["session_bytes"] > 0
        document = client.get("/openapi.json").json()
        assert "/v1/sessions/{session_id}/ask" in document["paths"]
        client.service.pool.is_draining = True
        assert client.get("/healthz").status_code == 503
        assert client.post("/v1/sessions", json={}).json()["error"]["code"] == "draining"
