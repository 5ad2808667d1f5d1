"""What goes wrong with files and disks: full, small, damaged."""

from __future__ import annotations

import resource
import shutil
import subprocess
import time
from contextlib import contextmanager

import pytest

from tests.serve.parts import ask, expected, opened, push, running, wait_for


@contextmanager
def files_no_larger_than(size):
    """The kernel refuses to write beyond `size` bytes of a file, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_costs_a_snapshot_and_nothing_else(tmp_path):
    folder = tmp_path / "sessions"
    with running(tmp_path) as client:
        session = opened(client)
        push(client, session, 0, 1, 2)
        assert client.post(f"/v1/sessions/{session}/save").json()["saved"] == 2
        before = sorted(p.name for p in folder.iterdir())
        push(client, session, 3, 4)
        with files_no_larger_than(20_000):
            answer = client.post(f"/v1/sessions/{session}/save")
            assert answer.status_code == 409
            assert "cannot write the snapshot" in answer.json()["error"]["message"]
            assert client.post(f"/v1/sessions/{session}/snapshots", json={}).status_code == 409
        assert (
            sorted(p.name for p in folder.iterdir()) == before
        )  # the old one is whole, nothing is left
        shown = client.get(f"/v1/sessions/{session}").json()
        assert (shown["saved"], shown["seen"]) == (2, 4)
        assert "cannot write" in shown["warning"]
        (ack,) = push(client, session, 5)
        assert (ack["seen"], ack["saved"]) == (5, 2)  # the client knows what is safe
        assert ask(client, session)["answer"] == expected(6)
        shown = client.post(f"/v1/sessions/{session}/save").json()  # there is room again
        assert (shown["saved"], shown["warning"]) == (5, None)


@contextmanager
def small_disk(folder, size):
    """A file system of `size` bytes at `folder`; skips where none can be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "spatial-ttt-test", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_without_space_is_survived_until_there_is_some(tmp_path):
    with small_disk(tmp_path / "disk", 600_000) as disk:
        ballast = disk / "ballast"
        with running(disk) as client:
            session = opened(client)
            push(client, session, 0, 1, 2)
            assert client.post(f"/v1/sessions/{session}/save").json()["saved"] == 2
            with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
                while True:  # to the last page
                    file.write(bytes(4096))
            push(client, session, 3, 4)
            answer = client.post(f"/v1/sessions/{session}/save")
            assert (answer.status_code, "No space left" in answer.text) == (409, True)
            assert client.get("/healthz").status_code == 200
            assert ask(client, session)["answer"] == expected(5)
        with running(disk) as client:  # stopped with a full disk: what was safe is still there
            assert client.get(f"/v1/sessions/{session}").json()["saved"] == 2
            ballast.unlink()
            push(client, session, 3, 4, 5)  # the client sends again what was not safe
            assert client.post(f"/v1/sessions/{session}/save").json()["saved"] == 5
            assert ask(client, session)["answer"] == expected(6)


def test_a_session_that_cannot_be_saved_is_not_put_to_sleep(tmp_path):
    with running(tmp_path, idle_s=0.1, snapshot_s=0.1) as client:
        with files_no_larger_than(20_000):
            session = opened(client)
            push(client, session, 0, 1, 2, 3)
            wait_for(lambda: client.get(f"/v1/sessions/{session}").json()["warning"])
            time.sleep(0.3)
            assert client.get(f"/v1/sessions/{session}").json()["state"] == "open"
        assert ask(client, session)["answer"] == expected(4)


def test_a_snapshot_budget_is_kept_and_leaves_room_to_save_what_is_open(tmp_path):
    with running(tmp_path, max_snapshot_bytes=200_000) as client:
        session = opened(client)
        push(client, session, 0, 1)
        answers = [
            client.post(f"/v1/sessions/{session}/snapshots", json={}).status_code for _ in range(4)
        ]
        assert answers == [201, 201, 409, 409]
    with running(tmp_path, max_snapshot_bytes=200_000) as client:
        assert client.get(f"/v1/sessions/{session}").json()["saved"] == 1


def test_damaged_and_half_written_files_hurt_no_other_session(tmp_path):
    folder = tmp_path / "sessions"
    with running(tmp_path) as client:
        good, bad, worse = (opened(client) for _ in range(3))
        for session in (good, bad, worse):
            push(client, session, 0, 1, 2)
    (state,) = folder.glob(f"{bad}.*.safetensors")
    content = bytearray(state.read_bytes())
    content[-100] ^= 1
    state.write_bytes(content)
    (folder / f"{worse}.json").write_text('{"format": 1')
    leftover = folder / f"{good}.00000000.safetensors"
    leftover.write_bytes(b"half of it")
    (folder / f".{good}.json.abc.tmp").write_bytes(b"half of it")
    with running(tmp_path) as client:
        assert not leftover.exists()  # no record names it: a kill left it behind
        assert {s["id"] for s in client.get("/v1/sessions").json()} == {good, bad}
        assert ask(client, good)["answer"] == expected(3)
        answer = client.post(f"/v1/sessions/{bad}/ask", json={"question": "?"})
        assert answer.status_code == 409
        assert "damaged" in answer.json()["error"]["message"]
        assert client.service.pool.ledger.of(bad) == 0
        assert len(list(folder.glob(f"{worse}.*"))) == 2  # left for a person to look at
