"""Files: replaced whole, or left as they were; JSON read with one clear error."""

from __future__ import annotations

import pytest

from spatial_ttt.errors import CheckpointError
from spatial_ttt.files import atomic_path, read_json


def test_a_file_is_replaced_at_the_end(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old" and temporary.parent == tmp_path
    assert target.read_text() == "new" and list(tmp_path.iterdir()) == [target]


def test_a_failure_leaves_the_old_file_alone(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_json(tmp_path):
    path = tmp_path / "a.json"
    for content, complaint in (
        (b"[1]", "holds a list, wanted an object"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=complaint):
            read_json(path)
    path.write_text('{"a": 1}')
    assert read_json(path) == {"a": 1}
    with pytest.raises(CheckpointError, match="No such file"):
        read_json(tmp_path / "b.json")
