"""Recordings for the Rerun viewer, read back by Rerun itself."""

from __future__ import annotations

import io
import sys

import pytest

from spatial_ttt.cli import main
from spatial_ttt.serve.rerun_log import RerunLog
from tests.serve.parts import live, pixels

try:
    import rerun
except ModuleNotFoundError:
    rerun = None

NOTE = {"slot": 0, "time": 0.5, "update": [0.0, 0.1], "surprise": [1.0, 2.0], "gate": [0.3, 0.4]}


@pytest.mark.skipif(rerun is None, reason="the rerun extra is not installed")
@pytest.mark.filterwarnings("ignore")
def test_a_recording_holds_frames_memory_and_answers(tmp_path):
    path = tmp_path / "walk.rrd"
    with RerunLog(path) as log:
        log.frame(pixels(0), 0.0)
        log.slot(NOTE)
        log.answer("How many?", "4", 0.5)
    content = path.read_bytes()
    assert content.startswith(b"RRF")
    for part in (b"/camera", b"/memory/surprise/layer_2", b"/talk", b"stream"):
        assert part in content


@pytest.mark.skipif(rerun is not None, reason="the rerun extra is installed")
def test_without_the_extra_the_command_says_which_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with live(tmp_path) as server:
        assert main(["connect", server.url, "--rerun", str(tmp_path / "x.rrd")]) == 1
    assert "pip install 'spatial-ttt[rerun]'" in capsys.readouterr().err
