"""Files that appear whole or not at all, and tar shards whose bytes depend on their content only."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from spatial_ttt.errors import DataError

_TEMPORARY = re.compile(r"\..+\.(?P<host>[^.]+)-(?P<pid>\d+)\.tmp")


def temporary_name(path: Path) -> Path:
    """Where this process writes `path` before it is whole; tells whose it is, to clean up after."""
    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}.tmp")


def remove_leftovers(folder: Path, pids: set[int] | None = None) -> None:
    """Remove unfinished files of this machine: of the given processes, or of all that are gone."""
    for path in folder.rglob(".*.tmp"):
        found = _TEMPORARY.fullmatch(path.name)
        if found is None or found["host"] != _host():
            continue
        pid = int(found["pid"])
        if pid in pids if pids is not None else not _is_running(pid):
            path.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that it is old or new at any moment, also when the power goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    with temporary.open("wb") as file:
        file.write(content)
        _to_disk(file)
    temporary.replace(path)


def file_sha256(path: Path) -> str:
    """Checksum of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ShardWriter:
    """Writes one tar shard in webdataset naming: files that share a key up to the first dot."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = temporary_name(path)
        self._file: BinaryIO = self._temporary.open("wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def add(self, key: str, suffix: str, content: bytes) -> None:
        """Append one member `key.suffix`."""
        if "." in key or "/" in key:
            raise DataError(f"key {key!r} must hold no dot or slash: readers cut there")
        member = tarfile.TarInfo(f"{key}.{suffix}")
        member.size = len(content)  # time 0, owner 0: bytes depend on the content only
        self._tar.addfile(member, io.BytesIO(content))

    def close(self) -> None:
        """Finish the shard and put it in place."""
        self._tar.close()
        _to_disk(self._file)
        self._file.close()
        self._temporary.replace(self.path)

    def abort(self) -> None:
        """Remove what was written."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


@contextlib.contextmanager
def shard_writers(paths: list[Path]) -> Iterator[list[ShardWriter]]:
    """Several shards written side by side; all are put in place, or none is begun to be."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(ShardWriter(path)) for path in paths]


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", socket.gethostname())


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
