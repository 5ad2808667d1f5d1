"""Tar shards and files that are whole or absent."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile

import pytest

from spatial_ttt.errors import DataError
from spatial_ttt.scenes.shards import (
    ShardWriter,
    file_sha256,
    remove_leftovers,
    shard_writers,
    temporary_name,
    write_atomic,
)


def test_a_shard_holds_its_members_in_order(tmp_path):
    path = tmp_path / "new" / "a-000000.tar"
    with ShardWriter(path) as writer:
        writer.add("0001", "mp4", b"video")
        writer.add("0001", "scene.json", b"{}")
        assert not path.exists()
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["0001.mp4", "0001.scene.json"]
        assert archive.extractfile("0001.mp4").read() == b"video"


def test_equal_content_gives_equal_bytes(tmp_path):
    for name in ("a.tar", "b.tar"):
        with ShardWriter(tmp_path / name) as writer:
            writer.add("k", "bin", bytes(1000))
    assert file_sha256(tmp_path / "a.tar") == file_sha256(tmp_path / "b.tar")


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(ValueError), shard_writers([tmp_path / "a.tar", tmp_path / "b.tar"]) as both:
        for writer in both:
            writer.add("k", "bin", b"x")
        raise ValueError
    assert list(tmp_path.iterdir()) == []


def test_keys_must_be_cut_at_the_first_dot(tmp_path):
    with ShardWriter(tmp_path / "a.tar") as writer:
        for key in ("a.b", "a/b"):
            with pytest.raises(DataError, match="no dot or slash"):
                writer.add(key, "mp4", b"")


def test_atomic_writing_replaces(tmp_path):
    path = tmp_path / "deep" / "x.json"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [entry.name for entry in path.parent.iterdir()] == ["x.json"]


def test_leftovers_of_dead_processes_go_and_others_stay(tmp_path):
    mine = temporary_name(tmp_path / "a.tar")
    mine.write_bytes(b"")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    theirs = mine.with_name(mine.name.replace(f"-{os.getpid()}.", f"-{dead.pid}."))
    theirs.write_bytes(b"")
    foreign = tmp_path / f".a.tar.elsewhere-{dead.pid}.tmp"
    foreign.write_bytes(b"")
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([mine, foreign])
    remove_leftovers(tmp_path, {os.getpid()})
    assert list(tmp_path.iterdir()) == [foreign]
