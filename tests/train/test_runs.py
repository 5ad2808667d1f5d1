"""`runs/tiny.sh`: the whole story, from a scene to an answered question, by the commands of the real runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "runs" / "tiny.sh"


@pytest.mark.slow
def test_the_whole_story(tmp_path):
    out = tmp_path / "out"
    environment = os.environ | {"PYTHON": sys.executable}
    run = subprocess.run(
        [str(SCRIPT), str(out)], env=environment, capture_output=True, text=True, timeout=1200
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert "overall" in run.stdout and run.stdout.strip().splitlines()[-1]
    for name in ("scene.html", "stage1/curves.png", "stage2/model/config.json", "eval/report.html"):
        assert (out / name).is_file(), name


def test_the_script_is_sound_shell():
    assert subprocess.run(["bash", "-n", str(SCRIPT)], check=False).returncode == 0
    assert os.access(SCRIPT, os.X_OK)
