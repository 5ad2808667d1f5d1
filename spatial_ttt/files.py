"""Files: written so that a reader sees the old one or the new one, never half of one; read with clear errors."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spatial_ttt.errors import CheckpointError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; on success it is flushed to disk and takes `path`'s place.

    On any failure, also a kill, `path` stays as it was; on an exception the temporary file is removed.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises CheckpointError when there is none."""
    try:
        value = json.loads(path.read_text())
    except OSError as error:
        raise CheckpointError(
            f"cannot read {path}: {error.strerror}; give the folder of a checkpoint"
        ) from error
    except ValueError as error:  # no JSON, or no text at all
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}, wanted an object")
    return value
