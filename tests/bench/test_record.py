"""Lines are on disk as soon as they are known; a place that refuses them is told before."""

from __future__ import annotations

import json
import os

import pytest
import torch

from spatial_ttt.bench.record import COMMIT, NAMED, append, check_writable, surroundings
from spatial_ttt.errors import ConfigError


def test_lines_are_appended(tmp_path):
    out = tmp_path / "new" / "bench.jsonl"
    check_writable(out, tmp_path / "plots")
    for number in range(3):
        append(out, {"number": number})
        assert len(out.read_text().splitlines()) == number + 1
    check_writable(out, None)
    assert [json.loads(line)["number"] for line in out.read_text().splitlines()] == [0, 1, 2]
    append(None, {})
    assert (tmp_path / "plots").is_dir()


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot make the folder"):
        check_writable(tmp_path / "file" / "bench.jsonl", None)
    with pytest.raises(ConfigError, match="is a folder"):
        check_writable(tmp_path, None)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is refused to root")
def test_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="not writable"):
        check_writable(tmp_path / "bench.jsonl", None)


def test_a_tree_without_history_is_told_its_commit(monkeypatch):
    monkeypatch.setenv(COMMIT, "def456")
    assert surroundings(torch.device("cpu"))["commit"] == "def456"
    assert surroundings(torch.device("cpu"), "abc123")["commit"] == "abc123"
    monkeypatch.delenv(COMMIT)
    assert surroundings(torch.device("cpu"))["commit"] != "def456"


def test_surroundings():
    found = surroundings(torch.device("cpu"), "abc123")
    assert found["commit"] == "abc123" and found["device"].endswith("CPU")
    assert found["versions"]["torch"] == torch.__version__
    assert set(found["versions"]) == {"python", *NAMED}
