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


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder of a run that has ended well, and what it said."""
    folder = tmp_path_factory.mktemp("first")
    with start(folder) as process:
        said, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    return folder, said


def test_a_run_trains_probes_and_publishes(first: tuple[Path, str], tmp_path: Path) -> None:
    folder, said = first
    lines = (folder / "work/metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    losses = [r["loss"] for r in records if "loss" in r and not r["blind"]]
    assert losses[-1] < losses[0]
    memory = [r["memory"] for r in records if "loss" in r]
    assert memory == sorted(memory) and {*memory} == {False, True}
    assert {r["probe"] for r in records if "probe" in r} == {"look", "room"}
    assert "stage room at step" in said
    load_model(unpack(folder / "out", tmp_path / "unpacked"))


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


def test_two_processes_end_with_the_same_weights(tmp_path: Path) -> None:
    """The run itself compares them at its end; only the first process saves."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    where = ["--work", str(tmp_path / "work"), "--publish", str(tmp_path / "out")]
    command = [sys.executable, *torchrun, "-m", "spatial_ttt.train.tiny", "--smoke", *where]
    done = subprocess.run(
        command,
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    load_model(unpack(tmp_path / "out", tmp_path / "unpacked"))
    assert not (tmp_path / "work/rank1/model").exists()


def test_a_kernel_that_cannot_run_is_an_error_at_once(tmp_path: Path) -> None:
    with start(tmp_path, "--kernels", "triton") as process:
        _, error = process.communicate(timeout=45)
    assert process.returncode == 1
    assert "ConfigError: the Triton kernel of" in error
    assert not (tmp_path / "out").exists()


def test_a_second_run_goes_on_from_what_the_first_published(
    first: tuple[Path, str], tmp_path: Path
) -> None:
    """From its middle, with memory from the first step on; homes of the stage before are made too."""
    second = tmp_path / "second"
    published = str(first[0] / "out")
    with start(second, "--resume", published, "--begin", "0.6", "--seed", "1") as process:
        said, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert "window 128, fast weights on at step 0" in said
    records = [json.loads(x) for x in (second / "work/metrics.jsonl").read_text().splitlines()]
    steps = [record for record in records if "loss" in record]
    assert steps[-1]["step"] >= 10 and all(record["memory"] for record in steps)
    assert steps[0]["loss"] < 7.2  # an untrained model of this vocabulary is at 7.3
    assert {record["stage"] for record in steps} == {"look", "room"}
    assert {record["probe"] for record in records if "probe" in record} == {"look", "room"}
    load_model(unpack(second / "out", tmp_path / "unpacked"))


def test_an_impossible_plan_ends_the_run_and_its_workers(tmp_path: Path) -> None:
    with start(tmp_path, "--shrink", "0.5", "0.4") as process:
        _, error = process.communicate(timeout=45)
    assert process.returncode == 1 and "before the window shrinks" in error


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
