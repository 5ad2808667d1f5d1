"""Answers as events, whatever is asked for."""

from __future__ import annotations

import json

import pytest

from spatial_ttt.serve.answers import plain_text
from tests.serve.parts import ask, opened, push, running


@pytest.mark.parametrize("decoding", [
    {"temperature": 5e-324}, {"temperature": 1e-300, "top_k": 3}, {"temperature": 100.0, "top_p": 1e-300},
    {"temperature": 1.0, "top_k": 10**9, "seed": 2**62}, {"max_new_tokens": 10**6},
])  # fmt: skip
def test_any_decoding_that_the_schema_allows_gives_an_answer(tmp_path, decoding):
    with running(tmp_path, limits={"max_new_tokens": 6}) as client:
        session = opened(client)
        push(client, session, 0, 1)
        first = ask(client, session, **({"max_new_tokens": 6} | decoding))
        assert (
            ask(client, session, **({"max_new_tokens": 6} | decoding))["answer"] == first["answer"]
        )


def test_a_question_that_cannot_be_asked_is_refused_before_the_stream_begins(tmp_path):
    with running(tmp_path) as client:
        session = opened(client)
        answer = client.post(f"/v1/sessions/{session}/ask", json={"question": "  "})
        assert answer.status_code == 409
        assert "empty" in answer.json()["error"]["message"]


def test_events_say_which_moment_the_answer_is_about(tmp_path):
    with running(tmp_path) as client:
        session = opened(client)
        push(client, session, 0, 1, 2)
        body = {"question": "Where?", "max_new_tokens": 3}
        text = client.post(f"/v1/sessions/{session}/ask", json=body).text
    events = [json.loads(part.removeprefix("data: ")) for part in text.split("\n\n") if part]
    assert (events[0]["seen"], events[0]["seconds_seen"]) == (2, 1.0)
    assert events[-1]["seconds"] > 0


def test_control_tokens_become_text():
    assert plain_text("a<|im_end|>b") == "a< |im_end| >b"
