"""Many commands at once: none waits for or ends another, and all end with the one that started them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from spatial_ttt.train.at_once import AtOnce, Ended, Job, append_line, slots, tail

WAITS = "import time; print('here', flush=True); time.sleep(60)"


def job(folder: Path, name: str, code: str) -> Job:
    return Job(name, (sys.executable, "-c", code), folder / name / "log.txt")


def run(
    folder: Path, codes: dict[str, str], count: int, limit: float = 0.0
) -> tuple[bool, list[Ended]]:
    ended: list[Ended] = []
    places = slots(count, ["3", "5"], 8)
    runner = AtOnce(places, ended.append, lambda one: "runs", limit)
    return runner.run([job(folder, name, code) for name, code in codes.items()]), ended


def alive_in_group(group: str) -> list[str]:
    """Processes of a group that are more than an entry nobody has asked after."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, _parent, of, *_ = path.read_text().rpartition(")")[2].split()
            if of == group and state != "Z":
                found.append(path.parent.name)
    return found


def test_jobs_run_at_once_each_with_its_own_log_and_gpu(tmp_path: Path) -> None:
    # Each waits for the other: one after the other they would never end.
    code = (
        "import os, pathlib, time\n"
        "me, other = (pathlib.Path({folder!r}, name) for name in ({me!r}, {other!r}))\n"
        "me.touch()\n"
        "while not other.exists(): time.sleep(0.01)\n"
        "print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['OMP_NUM_THREADS'])"
    )
    codes = {
        me: code.format(folder=str(tmp_path), me=f"{me}.here", other=f"{other}.here")
        for me, other in (("a", "b"), ("b", "a"))
    }
    whole, ended = run(tmp_path, codes, 2)
    assert whole and {(one.job.name, one.code) for one in ended} == {("a", 0), ("b", 0)}
    assert (tmp_path / "a" / "log.txt").read_text() == "3 1\n"
    assert (tmp_path / "b" / "log.txt").read_text() == "5 1\n"


def test_one_that_dies_is_told_with_the_end_of_its_log_and_ends_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    codes = {
        "bad": "print('about to'); raise SystemExit('no such thing')",
        "good": "pass",
        "last": "pass",
    }
    whole, ended = run(tmp_path, codes, 1)
    assert whole and [(one.job.name, one.code) for one in ended] == [
        ("bad", 1),
        ("good", 0),
        ("last", 0),
    ]
    (told,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert "bad ended with 1" in told and "about to\n    no such thing" in told


def test_when_the_time_is_up_all_end(tmp_path: Path) -> None:
    began = time.monotonic()
    whole, ended = run(tmp_path, {"slow": WAITS, "later": WAITS}, 1, limit=1.0)
    assert not whole and not ended and time.monotonic() - began < 10
    assert not (tmp_path / "later").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_children_and_what_they_started(
    tmp_path: Path, number: signal.Signals
) -> None:
    child = f"import subprocess, sys; subprocess.call([sys.executable, '-c', {WAITS!r}])"
    parent = (
        "import sys; from pathlib import Path\n"
        "from spatial_ttt.train.at_once import AtOnce, Job\n"
        f"jobs = [Job('one', (sys.executable, '-c', {child!r}), Path({str(tmp_path)!r}, 'log.txt'))]\n"
        "raise SystemExit(0 if AtOnce([{}], print, str).run(jobs) else 7)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stderr=subprocess.DEVNULL)
    try:
        while tail(tmp_path / "log.txt") != "    here":
            assert process.poll() is None
            time.sleep(0.05)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(alive_in_group(children[0])) == 2  # it and what it started
        process.send_signal(number)
        assert process.wait(timeout=20) == 7
        assert len(children) == 1 and alive_in_group(children[0]) == []
    finally:
        process.kill()


def test_slots_share_gpus_and_cores() -> None:
    places = slots(20, [str(n) for n in range(4)], 64)
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places].count("2") == 5
    assert {place["TORCHINDUCTOR_COMPILE_THREADS"] for place in places} == {"3"}
    assert "CUDA_VISIBLE_DEVICES" not in slots(1, [], 2)[0]


def test_lines_are_appended_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lines.jsonl"
    append_line(path, "{}")
    append_line(path, '{"a": "ä"}')
    assert path.read_text() == '{}\n{"a": "ä"}\n'
