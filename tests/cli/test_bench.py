"""`bench` through the command line, at toy size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spatial_ttt.cli import main

ROOT = Path(__file__).parents[2]
TOY = ["--preset", "test", "--size", "64x64", "--slots-per-piece", "2", "--repeats", "1"]


def test_a_run_writes_lines_a_table_and_plots(tmp_path, capsys):
    out, plots = tmp_path / "deep" / "bench.jsonl", tmp_path / "plots"
    args = ["bench", *TOY, "--frames", "4,8", "--modes", "stock,exact", "--commit", "abc"]
    assert main([*args, "--peak-tflops", "0.1", "--out", str(out), "--plot", str(plots)]) == 0
    shown = capsys.readouterr()
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(line["mode"], line["frames"]) for line in lines] == [
        ("stock", 4), ("stock", 8), ("exact", 4), ("exact", 8),
    ]  # fmt: skip
    for line in lines:
        assert line["commit"] == "abc" and line["device"].endswith("CPU") and 0 < line["mfu"] < 1
        assert line["versions"]["transformers"] and line["weights"] == "random"
    assert shown.out.startswith("prefill\n") and len(shown.out.splitlines()) == 2 + 4
    assert "prefill.png" in shown.err and (plots / "prefill.png").stat().st_size > 1000


def test_as_a_module_without_optional_packages():
    """The whole run on a machine that has no PyAV, OpenGL, web server or scipy."""
    script = (
        "import sys, runpy\n"
        "for name in ('av', 'moderngl', 'fastapi', 'websockets', 'uvicorn', 'scipy', 'PIL'):\n"
        "    sys.modules[name] = None\n"
        f"sys.argv = ['bench', *{TOY!r}, '--frames', '4', '--modes', 'exact', '--json',\n"
        "            '--what', 'prefill,sessions', '--sessions', '2', '--session-before', '1']\n"
        "runpy.run_module('spatial_ttt.bench', run_name='__main__')\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["what"] for line in done.stdout.splitlines()] == [
        "prefill",
        "sessions",
    ]


def test_a_saved_model_and_a_profile(tmp_path, capfd):
    from tests.scenery import write_checkpoint

    folder = str(write_checkpoint(tmp_path / "small"))
    args = ["bench", "--model", folder, "--modes", "exact", "--frames", "4", "--repeats", "1"]
    more = ["--live-before", "2", "--profile", "4", "--profile-live", "2", "--slots-per-piece", "2"]
    assert main([*args, *more]) == 0
    shown = capfd.readouterr().out
    assert "exact, a clip of 4 frames" in shown and "2 single slots after 2" in shown
    assert "aten::" in shown and "function calls" in shown


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--frames", "3"], "even numbers"),
        (["--preset", "tinny"], "did you mean 'tiny'"),
        (["--modes", "stok"], "did you mean 'stock'"),
        (["--size", "50x50"], "50x50"),
        (["--size", "large"], "HEIGHTxWIDTH"),
        (["--device", "cuda:99"], "cuda"),
        (["--model", "nowhere"], "nowhere is no folder"),
        (["--anchor-bytes", "10"], "raise the budget"),
        (["--anchor-bits", "4"], "8 or 16"),
    ],
)
def test_wrong_options_are_one_sentence_before_measuring(args, told, tmp_path, capsys):
    out = tmp_path / "bench.jsonl"
    assert main(["bench", "--out", str(out), *args]) == 1
    captured = capsys.readouterr()
    assert told in captured.err and captured.out == "" and not out.exists()


def test_a_place_that_cannot_be_written_is_told_before_measuring(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["bench", *TOY, "--out", str(tmp_path / "file" / "x.jsonl")]) == 1
    assert "cannot make the folder" in capsys.readouterr().err
    assert main(["bench", "--preset", "test", "--model", "x"]) == 2
