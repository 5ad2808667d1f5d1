"""The demonstration on the shipped model: real video, real answers, a page."""

from __future__ import annotations

import shutil
from html.parser import HTMLParser

import pytest

from spatial_ttt import demo
from spatial_ttt.cli import main
from spatial_ttt.errors import DataError
from spatial_ttt.loading import open_model


@pytest.fixture(scope="module")
def result():
    seen = []
    done = demo.run_demo(open_model(None, device="cpu"), on_answer=seen.append)
    assert seen == list(done.answers)
    return done


def test_the_walk_is_watched_and_every_question_answered(result):
    assert result.is_trained
    assert result.stats.num_frames == 64
    assert len(result.answers) >= 10
    assert len({a.item.question_type for a in result.answers}) >= 7
    assert all(0 <= a.score <= 1 for a in result.answers)
    # A trained model answers in the form that was asked for: numbers and letters.
    readable = [a for a in result.answers if a.reply.rstrip(".").replace(".", "", 1).isalnum()]
    assert len(readable) == len(result.answers)
    assert any(a.score > 0 for a in result.answers)


def test_the_page_is_well_formed_and_complete(result, tmp_path):
    page = tmp_path / "demo.html"
    demo.write_page(result, page)
    open_tags = []

    class Check(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in {
                "meta",
                "img",
                "br",
                "rect",
                "line",
                "polygon",
                "path",
                "circle",
                "polyline",
            }:
                open_tags.append(tag)

        def handle_endtag(self, tag):
            if tag in open_tags:
                while open_tags.pop() != tag:
                    pass

    Check().feed(page.read_text())
    assert not open_tags
    text = page.read_text()
    assert text.count("<figure>") == demo.PICTURES
    assert "<svg" in text and "Random weights" not in text
    assert all(a.item.question_type in text for a in result.answers)


def test_a_folder_without_a_demonstration_is_refused(tmp_path):
    with pytest.raises(DataError, match="make_demo"):
        demo.run_demo(open_model(None, device="cpu"), tmp_path)


def test_the_command_prints_answers_and_writes_the_page(tmp_path, capsys, monkeypatch):
    short = tmp_path / "demo"
    shutil.copytree(demo.DEMO, short)
    lines = (short / "examples.jsonl").read_text().splitlines()[:2]
    (short / "examples.jsonl").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(demo.run_demo, "__defaults__", (short,))
    assert main(["demo", "--out", str(tmp_path / "out" / "page.html"), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "2 questions, mean score" in out and out.count("truth") == 2
    assert (tmp_path / "out" / "page.html").is_file()
