"""Rows of a benchmark's question file: found, read and checked, with errors that name the row."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spatial_ttt.errors import DataError

SUFFIXES = (".jsonl", ".json", ".parquet")


@dataclass(frozen=True, slots=True)
class Row:
    """One record and where it stands, so that every complaint can say so."""

    fields: Mapping[str, Any]
    place: str

    def text(self, key: str) -> str:
        """A string that must be there; numbers are taken in their own digits."""
        value = self.fields.get(key)
        if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
            raise DataError(
                f"{self.place}: {key!r} must be text, got {value!r}; "
                f"the row has {sorted(self.fields)}"
            )
        return value if isinstance(value, str) else repr(value)

    def optional_text(self, key: str) -> str | None:
        """A string, or None when the key is absent or null."""
        return None if self.fields.get(key) is None else self.text(key)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings; empty when the key is absent or null."""
        value = self.fields.get(key)
        if value is None:
            return ()
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise DataError(f"{self.place}: {key!r} must be a list, got {value!r}")
        return tuple(str(entry) for entry in value)

    def number(self, key: str) -> float:
        """A finite number of at least 0, also when written as text."""
        return self.check_number(key, self.fields.get(key))

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of finite numbers of at least 0."""
        value = self.fields.get(key)
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise DataError(f"{self.place}: {key!r} must be a list of numbers, got {value!r}")
        return tuple(self.check_number(key, entry) for entry in value)

    def check_number(self, key: str, value: Any) -> float:
        """`value` as a finite float of at least 0."""
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number) or number < 0 or isinstance(value, bool):
            raise DataError(f"{self.place}: {key!r} must be a number of at least 0, got {value!r}")
        return number

    def choice(self, key: str, options: Sequence[str]) -> str:
        """The letter of one of `options`, which must be lettered A., B., ... without gaps."""
        letters = [option[:1] for option in options]
        if len(options) < 2 or letters != [chr(65 + index) for index in range(len(options))]:
            raise DataError(
                f"{self.place}: options must be lettered A., B., ..., got {list(options)}"
            )
        letter = self.text(key)
        if letter not in letters:
            raise DataError(
                f"{self.place}: {key!r} must be one of {', '.join(letters)}, got {letter!r}"
            )
        return letter


def find_questions(data: Path, names: Sequence[str], what: str) -> Path:
    """The question file: `data` itself if it is a file, else the first of `names` under it.

    A folder that holds exactly one question file of any name will do. `what` tells the user what to
    download when there is none.
    """
    if data.is_file():
        return data
    if not data.is_dir():
        raise DataError(f"{data} does not exist; download {what} and give its folder")
    for name in names:
        if (data / name).is_file():
            return data / name
    others = sorted(path for path in data.iterdir() if path.suffix in SUFFIXES and path.is_file())
    if len(others) == 1:
        return others[0]
    found = f"; it holds {', '.join(path.name for path in others[:6])}" if others else ""
    raise DataError(
        f"{data} has none of {', '.join(names[:3])}{found}; download {what}, "
        "or give the question file itself"
    )


def read_rows(path: Path) -> list[Row]:
    """All records of a .jsonl, .json (a list) or .parquet file; an empty file is an error."""
    if path.suffix == ".parquet":
        rows = _parquet_rows(path)
    elif path.suffix in (".jsonl", ".json"):
        rows = _json_rows(path)
    else:
        raise DataError(f"{path} is no {', '.join(SUFFIXES)} file")
    if not rows:
        raise DataError(f"{path} holds no records; download it again")
    return rows


def revision_of(path: Path) -> str:
    """The snapshot's name if `path` lies in a hub cache, and the first 16 digits of its SHA-256."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    snapshot = re.search(r"/snapshots/([0-9a-f]{7,40})/", str(path.absolute()))
    return f"{snapshot.group(1)}, sha256:{digest}" if snapshot else f"sha256:{digest}"


def _json_rows(path: Path) -> list[Row]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text ({error}); download it again") from error
    if path.suffix == ".json" and text.lstrip().startswith("["):
        return list(_rows_of_list(path, text))
    return list(_rows_of_lines(path, text))


def _rows_of_lines(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path.name} line {number}"
        try:
            fields = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{place} is no JSON ({error.msg}); is the file downloaded to its end?"
            ) from error
        yield _row(fields, place)


def _rows_of_list(path: Path, text: str) -> Iterator[Row]:
    try:
        records = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path.name} is no JSON: {error}; download it again") from error
    for number, fields in enumerate(records, start=1):
        yield _row(fields, f"{path.name} record {number}")


def _parquet_rows(path: Path) -> list[Row]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise DataError(
            f"{path} is Parquet and pyarrow is not installed; `pip install pyarrow`, "
            "or use the dataset's .jsonl file"
        ) from None
    records = parquet.read_table(path).to_pylist()
    return [_row(fields, f"{path.name} row {index}") for index, fields in enumerate(records)]


def _row(fields: Any, place: str) -> Row:
    if not isinstance(fields, dict):
        raise DataError(f"{place} must be an object, got {type(fields).__name__}")
    return Row(fields, place)
