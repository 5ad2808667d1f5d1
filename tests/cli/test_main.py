"""The command line's frame: help at once, one sentence per mistake, exit codes, current docs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import spatial_ttt
from spatial_ttt.cli import build_app, main
from spatial_ttt.cli.problems import report_errors
from spatial_ttt.cli.reference import render_reference
from spatial_ttt.errors import VideoError

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "av", "moderngl", "numpy", "scipy", "fastapi", "matplotlib"}


def test_help_is_quick_and_imports_nothing_heavy():
    script = (
        "import sys; from spatial_ttt.cli import main; code = main(['--help']);"
        f"print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    took = time.monotonic() - began
    assert done.returncode == 0 and "Usage: spatial-ttt" in done.stdout
    assert done.stderr.strip() == "[]"
    assert took < 3, f"--help took {took:.2f} s"  # 0.1 s measured; generous for a busy machine


def test_version_and_module_entry():
    command = [sys.executable, "-m", "spatial_ttt", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, f"spatial-ttt {spatial_ttt.__version__}\n")


def test_usage_errors_exit_2_and_name_the_nearest(capsys):
    assert main(["--verson"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "--version" in captured.err
    assert main(["dat"]) == 2
    assert "data" in capsys.readouterr().err


def test_a_users_mistake_is_one_sentence_on_stderr(capsys):
    def fail() -> None:
        raise VideoError("walk.mp4 is damaged;\n  12 frames were read")

    assert report_errors(fail) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: walk.mp4 is damaged; 12 frames were read\n"


def test_a_missing_extra_says_how_to_install_it(capsys):
    def fail() -> None:
        raise ModuleNotFoundError("No module named 'moderngl.context'", name="moderngl.context")

    assert report_errors(fail) == 1
    assert "pip install 'spatial-ttt[scenes]'" in capsys.readouterr().err


def test_our_own_bugs_are_not_hidden():
    with pytest.raises(ModuleNotFoundError):
        report_errors(lambda: __import__("no_such_module_of_ours"))
    with pytest.raises(ZeroDivisionError):
        report_errors(lambda: print(1 // 0))


def test_ctrl_c_exits_130_without_a_traceback():
    script = (
        "import sys, time; from spatial_ttt.cli.problems import report_errors\n"
        "def wait(): print('waiting', flush=True); time.sleep(60)\n"
        "sys.exit(report_errors(wait))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None and process.stdout.readline() == b"waiting\n"
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (130, b"")


def test_docs_are_current():
    written = (ROOT / "docs" / "cli.md").read_text()
    assert written == render_reference(build_app()), "run: python scripts/make_cli_docs"
