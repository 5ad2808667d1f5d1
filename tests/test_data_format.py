"""The sample format: what is accepted, what is refused and how, and media inside tar shards."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from spatial_ttt.data_format import (
    Sample,
    Turn,
    parse_pack,
    parse_sample,
    read_media,
    read_packs,
    read_samples,
    sample_to_json,
    to_jsonl,
)
from spatial_ttt.errors import DataError

GOOD = {
    "video": "a.mp4",
    "conversations": [
        {"from": "human", "value": "<video>\nHow many chairs?"},
        {"from": "gpt", "value": "4"},
    ],
}


def changed(**fields):
    return GOOD | fields


def turns(*texts):
    return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]


def test_a_plain_users_sample():
    sample = parse_sample(GOOD, "here")
    assert sample.videos == ("a.mp4",) and sample.images == ()
    assert sample.turns == (Turn("human", "<video>\nHow many chairs?"), Turn("gpt", "4"))


def test_round_trip_keeps_everything():
    record = changed(
        format=1,
        id="x",
        video=["a.mp4", "b.mp4"],
        image="c.png",
        conversations=turns("<video> <image>", "hm", "and <video>?", "yes"),
        question_type="object_counting",
        options=["A. one", "B. two"],
        ground_truth="A",
        visible_until_s=12,
        license="CC0",
    )
    sample = parse_sample(record, "here")
    assert sample.visible_until_s == 12.0 and sample.extra == {"license": "CC0"}
    assert parse_sample(sample_to_json(sample), "again") == sample


def test_lists_are_packs(tmp_path):
    assert len(parse_pack([GOOD, GOOD], "here")) == 2
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(GOOD) + "\n\n" + json.dumps([GOOD, GOOD, GOOD]) + "\n")
    assert [len(pack) for pack in read_packs(path)] == [1, 3]
    assert len(list(read_samples(path))) == 4
    path = tmp_path / "a.json"
    path.write_text(json.dumps([GOOD, [GOOD, GOOD]]))
    assert [len(pack) for pack in read_packs(path)] == [1, 2]
    path.write_text(to_jsonl([parse_sample(GOOD, "here")]))
    assert next(read_samples(path)).videos == ("a.mp4",)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], "empty list"),
        ("text", "a str, expected an object"),
        (changed(format=2), "format 2; this version reads up to 1"),
        (changed(conversations=[]), "must be a list of turns"),
        (changed(conversations=[{"from": "human"}]), "turn 0: expected from and value"),
        (changed(conversations=turns("<video>", "a")[::-1]), "turn 0 is from 'gpt', expected"),
        (changed(conversations=turns("hi", "a")), "0 <video> for 1 video paths"),
        (changed(conversations=turns("<video><video>", "a")), "2 <video> for 1 video paths"),
        (changed(conversations=turns("<video><image>", "a")), "1 <image> for 0 image paths"),
        (changed(conversations=turns("<video>", "<video>")), "human turns only"),
        (changed(video=3), "video must be a path or a list of paths, got 3"),
        (changed(video=["a.mp4", ""]), "video must be a path"),
        (changed(options="A"), "options must be a list"),
        (changed(ground_truth=4), "ground_truth must be a str, got 4"),
        (changed(visible_until_s="4"), "visible_until_s must be a float"),
    ],
)
def test_each_mistake_is_named(record, message):
    with pytest.raises(DataError) as caught:
        parse_pack(record, "data.jsonl:7")
    assert message in str(caught.value) and "data.jsonl:7" in str(caught.value)


def test_unreadable_files(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        list(read_samples(tmp_path / "absent.jsonl"))
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(DataError, match=r"a\.jsonl:1: conversations"):
        list(read_samples(tmp_path / "a.jsonl"))
    (tmp_path / "b.jsonl").write_text(json.dumps(GOOD) + '\n{"a": \n')
    with pytest.raises(DataError, match=r"b\.jsonl:2 is not JSON"):
        list(read_samples(tmp_path / "b.jsonl"))
    (tmp_path / "c.json").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match="UTF-8"):
        list(read_samples(tmp_path / "c.json"))


def test_media_from_files_and_from_shards(tmp_path):
    (tmp_path / "plain.mp4").write_bytes(b"plain")
    with tarfile.open(tmp_path / "train-000000.tar", "w") as archive:
        for name, content in (("0001.mp4", b"one"), ("0002.mp4", b"two!")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    assert read_media(tmp_path, "plain.mp4") == tmp_path / "plain.mp4"
    assert read_media(tmp_path, "train-000000.tar/0002.mp4") == b"two!"
    assert read_media(tmp_path, "train-000000.tar/0001.mp4") == b"one"
    with pytest.raises(DataError, match=r"holds no 0003\.mp4"):
        read_media(tmp_path, "train-000000.tar/0003.mp4")
    with pytest.raises(DataError, match="does not exist"):
        read_media(tmp_path, "absent.mp4")
    (tmp_path / "bad.tar").write_bytes(b"no archive" * 99)
    with pytest.raises(DataError, match="not a whole tar"):
        read_media(tmp_path, "bad.tar/0001.mp4")


def test_a_sample_needs_no_media():
    sample = Sample(turns=(Turn("human", "hello"), Turn("gpt", "hi")))
    assert parse_sample(sample_to_json(sample), "here") == sample
