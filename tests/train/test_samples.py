"""The index of all samples: checked once, read by offset, changed data noticed."""

from __future__ import annotations

import json

import pytest

from spatial_ttt.data_format import read_packs
from spatial_ttt.errors import DataError
from spatial_ttt.testing.small import small_processor
from spatial_ttt.train.run_config import DataConfig, FramesConfig
from spatial_ttt.train.samples import index_samples
from tests.train import toy

PROCESSOR = small_processor((32, 64))


def index(*files, **changes):
    return index_samples(DataConfig(files=tuple(map(str, files)), **changes), PROCESSOR, 16)


def records():
    return [toy.sample(n, f"clip-{n}.mp4", "é" * n + "4") for n in range(5)]


def test_records_come_back_from_lines_lists_and_folders(tmp_path):
    lines = tmp_path / "examples.jsonl"
    lines.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in records()) + "\n\n")
    whole = tmp_path / "more.json"
    whole.write_text(json.dumps([records()[0], [records()[1], records()[2]]]))
    found = index(tmp_path, whole)
    expected = [*read_packs(lines), *read_packs(whole)]
    assert [found.pack(n) for n in range(len(found))] == expected
    assert found.num_samples.tolist() == [1, 1, 1, 1, 1, 1, 2]
    assert {found.root(n) for n in range(len(found))} == {tmp_path}


def test_types_choose_the_stage(tmp_path):
    kinds = ["scene_description", "object_counting", "room_size_estimation"]
    path = tmp_path / "a.jsonl"
    rows = [toy.sample(n, "a.mp4", "1") | {"question_type": kind} for n, kind in enumerate(kinds)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def chosen(**changes):
        found = index(path, **changes)
        return [found.pack(n)[0].question_type for n in range(len(found))]

    assert chosen(only_types=("scene_description",)) == kinds[:1]
    assert chosen(skip_types=("scene_description",)) == kinds[1:]
    with pytest.raises(DataError, match="no sample is left"):
        chosen(only_types=("vsr",))


def test_the_fingerprint_is_of_the_records_and_not_of_their_place(tmp_path):
    def written(name, rows):
        path = tmp_path / name / "a.jsonl"
        path.parent.mkdir()
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return index(path).fingerprint

    first = written("one", records())
    assert written("two", records()) == first
    assert written("three", records()[::-1]) != first
    assert written("four", records()[:4]) != first


def test_mistakes_name_their_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(records()[0]) + "\n{broken\n")
    with pytest.raises(DataError, match=r"a\.jsonl:2 is not JSON"):
        index(path)
    path.write_text(json.dumps({"video": "a.mp4", "conversations": []}) + "\n")
    with pytest.raises(DataError, match=r"a\.jsonl:1: conversations"):
        index(path)
    with pytest.raises(DataError, match="does not exist"):
        index(tmp_path / "absent.jsonl")


def test_a_sample_that_may_not_fit_is_refused_at_once(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(records()[0]) + "\n")
    with pytest.raises(DataError, match=r"up to \d+ tokens, data.max_tokens is 500"):
        index(path, max_tokens=500)
    assert len(index(path, max_tokens=500, frames=FramesConfig(most=4))) == 1
