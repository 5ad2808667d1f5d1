"""Sessions over HTTP: what is pushed is what is asked, in order and once."""

from __future__ import annotations

from spatial_ttt.generate import Decoding
from tests.serve.parts import ask, offline, opened, png, push, running


def test_an_answer_over_http_is_the_session_own_answer(tmp_path):
    with running(tmp_path) as client:
        session = opened(client, name="kitchen")
        acks = push(client, session, *range(7))
        answer = ask(client, session)
    expected = "".join(offline(7).ask("How many?", Decoding(max_new_tokens=12)))
    assert expected
    assert answer["answer"] == expected
    assert (answer["seen"], answer["seconds_seen"]) == (6, 3.0)
    assert [a["status"] for a in acks] == ["watched"] * 7
    assert [a["slots"] for a in acks] == [0, 1, 1, 2, 2, 3, 3]
