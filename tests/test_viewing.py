"""Watching files to their end, and live sources with questions typed in between."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from spatial_ttt.errors import VideoError
from spatial_ttt.loading import LoadedModel
from spatial_ttt.video import write_mp4
from spatial_ttt.viewing import answer_source, watch_live, watch_source
from tests.scenery import SHORT, answer, frames, model, processor, session


def loaded() -> LoadedModel:
    return LoadedModel(model(), processor(), "small", True)


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.mp4"
    write_mp4(path, [f.pixels for f in frames(20)], fps=4.0)
    return path


def test_a_file_is_watched_to_its_end(clip):
    viewer = watch_source(loaded(), clip, fps=4.0)
    figures = viewer.figures()
    assert (figures["frames"], figures["slots"], figures["seconds_seen"]) == (20, 10, 4.75)
    assert figures["state_bytes"] == viewer.session.stats().state_bytes > 0
    parts = figures["seconds"]
    assert list(parts) == ["decode", "preprocess", "vision", "decoder", "answer"]
    assert all(parts[name] > 0 for name in ("decode", "preprocess", "vision", "decoder"))
    assert len(viewer.profile().splitlines()) == 6 and "ms per frame" in viewer.profile()
    assert len(answer(viewer.session)) > 0


def test_the_only_question_is_answered_as_after_watching(clip):
    question = "How many chairs are there?"
    asked = watch_source(loaded(), clip, fps=4.0)
    expected = "".join(asked.session.ask(question, SHORT))
    viewer, pieces = answer_source(loaded(), clip, question, SHORT, fps=4.0)
    assert "".join(pieces) == expected
    assert viewer.figures()["frames"] == 20 and viewer.decode_seconds > 0
    assert len(viewer.profile().splitlines()) == 6


def test_uniform_frames(clip):
    assert watch_source(loaded(), clip, num_frames=6).session.stats().num_frames == 6


def test_arrays_need_no_file():
    pixels = np.stack([f.pixels for f in frames(6)])
    assert watch_source(loaded(), pixels, fps=2.0).session.stats().num_slots == 3


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_damaged_files(clip, damage):
    data = clip.read_bytes()
    clip.write_bytes({"truncated": data[:200], "garbage": b"\x00\xff" * 500, "empty": b""}[damage])
    with pytest.raises(VideoError):
        watch_source(loaded(), clip, fps=4.0)


def test_no_frames_at_all():
    with pytest.raises(VideoError):
        watch_source(loaded(), np.zeros((0, 32, 48, 3), np.uint8), fps=2.0)


def test_frames_with_nan():
    pixels = np.zeros((3, 32, 48, 3), np.float32)
    pixels[1, 0, 0] = np.nan
    with pytest.raises(VideoError, match="NaN"):
        watch_source(loaded(), pixels, fps=2.0)


class Source:
    """Frames, and what a person types before frame `when` (or after the last one)."""

    def __init__(self, keyboard, typed: str, when: int) -> None:
        self.keyboard, self.typed, self.when = keyboard, typed, when

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def __iter__(self):
        for number, frame in enumerate(frames(8)):
            self.type_at(number)
            yield frame
        self.type_at(8)

    def type_at(self, number: int) -> None:
        if number == self.when:
            self.keyboard.write(self.typed)
            self.keyboard.flush()
            time.sleep(0.3)  # the reader thread picks it up


def live(monkeypatch, typed: str, when: int, then: str = "\n") -> list[str]:
    """Answers of a live session; after each, `then` is typed (an empty line ends)."""
    read, write = os.pipe()
    with os.fdopen(read) as stdin, os.fdopen(write, "w") as keyboard:
        source = Source(keyboard, typed, when)
        monkeypatch.setattr("sys.stdin", stdin)
        monkeypatch.setattr("spatial_ttt.viewing.open_source", lambda *_, **__: source)
        said: list[str] = []

        def say(pieces) -> None:
            said.append("".join(pieces))
            keyboard.write(then)
            keyboard.flush()

        watch_live(loaded(), "camera", fps=2.0, decoding=SHORT, say=say)
    return said


def test_a_source_that_ended_can_still_be_asked(monkeypatch, capfd):
    said = live(monkeypatch, "How many?\n", when=8)
    quiet = session()
    quiet.observe(frames(8))
    assert said == [answer(quiet)]
    err = capfd.readouterr().err
    assert "4 slots, 3.5 s seen" in err and "bytes of state" in err


def test_an_empty_line_ends_at_once(monkeypatch, capfd):
    assert live(monkeypatch, "\n", when=2) == []
    assert "4 slots" not in capfd.readouterr().err


def test_a_question_is_answered_as_of_its_moment(monkeypatch):
    said = live(monkeypatch, "How many?\n", when=4)
    quiet = session()
    quiet.observe(frames(5))
    assert said == [answer(quiet)]
