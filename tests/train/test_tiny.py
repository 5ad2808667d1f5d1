"""The small model's run as a whole: it learns, ends cleanly when told to, and fails at once when it must."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spatial_ttt.checkpoint import load_model
from spatial_ttt.train.publish import unpack
from spatial_ttt.train.tiny import parse

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "spatial_ttt.train.tiny", "--smoke"]
ENVIRONMENT = dict(os.environ, OMP_NUM_THREADS="1")


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    where = ["--work", str(folder / "work"), "--publish", str(folder / "out")]
    return subprocess.Popen(
        [*COMMAND, *where, *more],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_run_trains_probes_and_publishes(tmp_path: Path) -> None:
    with start(tmp_path) as process:
        said, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    lines = (tmp_path / "work/metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    losses = [r["loss"] for r in records if "loss" in r]
    assert losses[-1] < losses[0]
    assert {r["probe"] for r in records if "probe" in r} == {"look", "room"}
    assert "stage room at step" in said
    load_model(unpack(tmp_path / "out", tmp_path / "unpacked"))


@pytest.mark.parametrize("until", ["ray caster", "step 2"])
def test_a_signal_to_the_whole_group_ends_with_a_save(tmp_path: Path, until: str) -> None:
    with start(tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if until in line:
                break
        began = time.monotonic()
        os.killpg(process.pid, signal.SIGTERM)
        said, error = process.communicate(timeout=30)
    assert process.returncode == 0, error
    assert time.monotonic() - began < 20
    assert "asked to end" in said
    load_model(unpack(tmp_path / "out", tmp_path / "unpacked"))


def test_a_kernel_that_cannot_run_is_an_error_at_once(tmp_path: Path) -> None:
    with start(tmp_path, "--kernels", "triton") as process:
        _, error = process.communicate(timeout=45)
    assert process.returncode == 1
    assert "ConfigError: the Triton kernel of" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["workers", "clips", "branches", "capacity"])
def test_a_run_of_nothing_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse([f"--{name}", "0"])
    assert f"--{name} must be at least 1, got 0" in capsys.readouterr().err


def test_a_smoke_run_keeps_what_was_asked_for_and_stays_small() -> None:
    chosen = parse(["--smoke", "--seed", "4", "--work", "here"])
    assert (chosen.seed, chosen.work) == (4, Path("here"))
    assert (chosen.preset, chosen.plan, chosen.workers) == ("test", "smoke", 1)
    assert chosen.device == "cpu" and chosen.dtype == "float32"
