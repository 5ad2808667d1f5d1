"""Single values out of untrusted JSON: numbers, vectors, lists, each with a clear SceneError."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.scene import Array


def number(value: Any, where: str) -> float:
    """A finite float from a number or a numeric string."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise SceneError(f"{where}: got {value!r}, expected a number")
    try:
        result = float(value)
    except ValueError:
        raise SceneError(f"{where}: got {value!r}, expected a number") from None
    if not math.isfinite(result):
        raise SceneError(f"{where}: got {value!r}, expected a finite number")
    return result


def whole(value: Any, where: str) -> int:
    """An int from a whole number or its string."""
    result = number(value, where)
    if result != int(result):
        raise SceneError(f"{where}: got {value!r}, expected a whole number")
    return int(result)


def vector(value: Any, shape: tuple[int, ...], where: str) -> Array:
    """A read-only float array of `shape` (-1: any length) from numbers or numeric strings."""
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise SceneError(f"{where}: got {_short(value)}, expected numbers") from None
    if len(shape) == array.ndim and all(
        want in (-1, got) for want, got in zip(shape, array.shape, strict=True)
    ):
        matched = True
    else:
        matched = -1 not in shape and array.size == math.prod(shape) and array.ndim <= len(shape)
        array = array.reshape(shape) if matched else array
    if not matched:
        raise SceneError(f"{where}: got shape {array.shape}, expected {shape}")
    if not np.isfinite(array).all():
        raise SceneError(f"{where}: got {_short(value)}, expected finite numbers")
    array.flags.writeable = False
    return array


def text(value: Any, where: str) -> str:
    """A non-empty string."""
    if not isinstance(value, str) or not value.strip():
        raise SceneError(f"{where}: got {_short(value)}, expected a non-empty text")
    return value


def mapping(value: Any, where: str) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise SceneError(f"{where}: got {_short(value)}, expected a JSON object")
    return value


def sequence(value: Any, where: str) -> list[Any]:
    """A JSON list."""
    if not isinstance(value, list):
        raise SceneError(f"{where}: got {_short(value)}, expected a JSON list")
    return value


def required(record: dict[str, Any], key: str, where: str) -> Any:
    """`record[key]`, or a SceneError that names the missing field."""
    if key not in record:
        raise SceneError(f"{where} lacks the field {key!r}; it has {sorted(record)}")
    return record[key]


def load_json(path: str | Path) -> Any:
    """The value in a JSON file, or the list of values in a JSON Lines file."""
    try:
        content = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SceneError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise SceneError(f"cannot read {path}: it is not UTF-8 text ({error.reason})") from error
    try:
        return json.loads(content)
    except json.JSONDecodeError as whole_error:
        lines = [line for line in content.splitlines() if line.strip()]
        try:
            if len(lines) < 2:
                raise whole_error
            return [json.loads(line) for line in lines]
        except json.JSONDecodeError:
            raise SceneError(
                f"{path} is neither JSON nor JSON Lines: {whole_error.msg} "
                f"in line {whole_error.lineno}, column {whole_error.colno}"
            ) from None


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
