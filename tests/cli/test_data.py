"""`spatial-ttt data`: what it prints, where, and how it refuses. Building itself: tests/scenes."""

from __future__ import annotations

import json

import pytest

from spatial_ttt.cli import main
from spatial_ttt.data_format import read_samples
from spatial_ttt.scenes.homes import make_home
from spatial_ttt.scenes.scene_json import scene_to_json

TINY = [
    "--fps",
    "2",
    "--duration",
    "4",
    "--rooms",
    "1",
    "--size",
    "64x48",
    "--small-sizes",
    "32x24",
]


def test_build_prints_its_answer_on_stdout_and_progress_on_stderr(tmp_path, capsys):
    out = tmp_path / "homes"
    counts = ["--scenes", "1", "--val-scenes", "0", "--test-scenes", "0"]
    assert main(["data", "build", *counts, "--out", str(out), *TINY]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{out}/manifest.json: 1 shards made, 0 kept, 8 frames filmed\n"
    assert "scenes" in captured.err and "1/1" in captured.err
    assert main(["data", "build", *counts, "--out", str(out), *TINY, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["shards_made"], report["shards_kept"]) == (0, 1)
    assert report["settings"]["small_sizes"] == [[32, 24]]
    other = [*counts, "--out", str(out), *TINY, "--fps", "3"]
    assert main(["data", "build", *other]) == 1
    assert "fps: 2.0 there, 3.0 now" in capsys.readouterr().err.replace("\n", " ")


def test_build_of_a_part_says_what_is_left(tmp_path, capsys):
    counts = ["--scenes", "2", "--val-scenes", "0", "--test-scenes", "0", "--scenes-per-shard", "1"]
    command = ["data", "build", *counts, "--out", str(tmp_path), *TINY, "--shard", "1/2"]
    assert main(command) == 0
    assert "1 shards made, 1 left to other machines" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard", "2/2"], "i/n"),
        (["--rooms", "9"], "rooms run from 1 to 8"),
        (["--size", "481x352"], "even sides"),
        (["--scenes", "-1"], "at least 1 scene"),
        (["--workers", "0"], "workers must be at least 1"),
    ],
)
def test_wrong_settings_are_one_sentence(tmp_path, capsys, options, message):
    assert main(["data", "build", "--scenes", "1", "--out", str(tmp_path), *options]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and message in captured.err and "Traceback" not in captured.err


def test_questions_and_show(tmp_path, capsys):
    annotations = tmp_path / "scans.json"
    annotations.write_text(json.dumps([scene_to_json(make_home(4).scene)]))
    out = tmp_path / "q" / "examples.jsonl"
    assert main(["data", "questions", "--annotations", str(annotations), "--out", str(out)]) == 0
    count = len(list(read_samples(out)))
    assert capsys.readouterr().out == f"{out}: {count} examples\n" and count > 5
    page = tmp_path / "page.html"
    assert main(["data", "show", str(annotations), "--out", str(page)]) == 0
    assert capsys.readouterr().out == f"{page}\n"
    assert "<svg" in page.read_text()
    assert main(["data", "show", str(tmp_path / "absent.json")]) == 1
    assert "absent.json" in capsys.readouterr().err


def test_long_refuses_what_is_too_short(tmp_path, capsys):
    command = ["data", "long", "--streams", "1", "--minutes", "1", "--out", str(tmp_path)]
    assert main(command) == 1
    assert "minutes run from 3" in capsys.readouterr().err
