"""What a build remembers."""

import pytest

from spatial_ttt.errors import DataError
from spatial_ttt.scenes.examples import PoolLine
from spatial_ttt.scenes.parts import file_facts, prepare, read_part, read_pool, write_part
from spatial_ttt.scenes.shards import file_sha256


def test_a_part_is_done_when_all_its_files_are_whole(tmp_path):
    file = tmp_path / "a" / "b.tar"
    file.parent.mkdir()
    file.write_bytes(b"12345")
    lines = [PoolLine("k", "v.mp4", 1.0, "text", ())]
    assert read_part(tmp_path, "p") is None
    write_part(tmp_path, "p", lines, [file], {"device": "cpu"})
    record = read_part(tmp_path, "p")
    assert record is not None and record["device"] == "cpu"
    assert record["files"]["a/b.tar"] == {"bytes": 5, "sha256": file_sha256(file)}
    assert read_pool(tmp_path, "p") == lines
    file.write_bytes(b"1234")
    assert read_part(tmp_path, "p") is None
    file.unlink()
    assert read_part(tmp_path, "p") is None


def test_a_folder_keeps_its_settings(tmp_path):
    prepare(tmp_path / "new", {"fps": 1})
    prepare(tmp_path / "new", {"fps": 1})
    with pytest.raises(DataError, match="fps: 1 there, 2 now"):
        prepare(tmp_path / "new", {"fps": 2})
    assert list(file_facts(tmp_path, [tmp_path / "new" / "build.json"])) == ["new/build.json"]
