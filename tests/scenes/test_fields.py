"""Single values out of JSON: what passes, and what the refusals say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes import fields


@pytest.mark.parametrize(
    ("value", "expected"), [(2, 2.0), ("2.5", 2.5), (-1.5, -1.5), ("1e2", 100)]
)
def test_numbers_may_be_strings(value: Any, expected: float) -> None:
    assert fields.number(value, "here") == expected


@pytest.mark.parametrize("value", [None, "two", True, [1], float("nan"), "inf"])
def test_what_is_no_finite_number_is_refused(value: Any) -> None:
    with pytest.raises(SceneError, match="here: got"):
        fields.number(value, "here")


def test_whole_numbers() -> None:
    assert fields.whole("3.0", "here") == 3
    with pytest.raises(SceneError, match="whole number"):
        fields.whole(2.5, "here")


def test_vectors_take_strings_and_flat_rows() -> None:
    assert fields.vector(["1", 2, "3.5"], (3,), "here").tolist() == [1, 2, 3.5]
    assert fields.vector(range(9), (3, 3), "here")[1].tolist() == [3, 4, 5]
    assert fields.vector([[1, 2], [3, 4], [5, 6]], (-1, 2), "here").shape == (3, 2)
    assert not fields.vector([1, 2], (2,), "here").flags.writeable


@pytest.mark.parametrize(
    ("value", "shape"),
    [([1, 2], (3,)), ([[1, 2], [3]], (-1, 2)), ("abc", (3,)), ([1, 2, None], (3,)), (None, (3,)),
     ([1, 2, float("inf")], (3,)), ([[1, 2, 3]], (-1, 2)), (list(range(8)), (3, 3))],
)  # fmt: skip
def test_other_vectors_are_refused(value: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(SceneError, match="here: got"):
        fields.vector(value, shape, "here")


def test_containers_and_missing_fields() -> None:
    assert fields.mapping({"a": 1}, "here") == {"a": 1}
    assert fields.sequence([1], "here") == [1]
    assert fields.text("x", "here") == "x"
    for call in (fields.mapping, fields.sequence, fields.text):
        with pytest.raises(SceneError, match="here: got 3"):
            call(3, "here")
    with pytest.raises(SceneError, match=r"here lacks the field 'b'; it has \['a'\]"):
        fields.required({"a": 1}, "b", "here")


def test_files_of_json_and_of_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"a": [1, 2]}')
    assert fields.load_json(path) == {"a": [1, 2]}
    path.write_text('\ufeff{"a": 1}\n\n{"a": 2}\n', encoding="utf-8")
    assert fields.load_json(path) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1}\n{"a": ', b"\xff\xfe\x00"])
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(SceneError, match=r"broken\.json"):
        fields.load_json(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match=r"cannot read .*none\.json"):
        fields.load_json(tmp_path / "none.json")


def test_long_values_are_shortened_in_messages() -> None:
    with pytest.raises(SceneError) as caught:
        fields.mapping("x" * 500, "here")
    assert len(str(caught.value)) < 120


def test_arrays_pass_through() -> None:
    assert fields.vector(np.eye(3), (3, 3), "here").shape == (3, 3)
