"""Sessions on disk: for each a record (JSON) and the state's file it names, both whole or not there.

save: state to a new file -> record, renamed into place, names it -> the older file is removed.
A kill at any moment leaves the old pair or the new one. No name comes from a client.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import threading
from pathlib import Path

from spatial_ttt.errors import CheckpointError, ConfigError
from spatial_ttt.files import atomic_path, read_json
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.serve.records import SessionRecord, record_from_json
from spatial_ttt.snapshot import save_snapshot
from spatial_ttt.stream_state import StreamState

log = logging.getLogger(__name__)

_ID = re.compile(r"[0-9a-f]{24}")
_STATE_FILE = re.compile(r"([0-9a-f]{24})\.[0-9a-f]{8}\.safetensors")


def new_id() -> str:
    """A session's or snapshot's id: nobody guesses it, and it is a safe file name."""
    return secrets.token_hex(12)


class SnapshotStore:
    """A folder of sessions. Methods block on the disk; call them from a thread."""

    def __init__(
        self, folder: Path, max_bytes: int, model: SpatialTTTForConditionalGeneration
    ) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.model = model
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._probe()
        except OSError as error:
            raise ConfigError(
                f"cannot write to the snapshot folder {folder}: {error.strerror}; give another with --snapshot-dir"
            ) from error

    def _probe(self) -> None:
        """Only one server may own a folder: two would remove each other's files."""
        self._owner = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            import fcntl

            fcntl.flock(self._owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._owner)
            raise ConfigError(
                f"the snapshot folder {self.folder} is used by another server; give each its own"
            ) from error

    def close(self) -> None:
        """Let another server have the folder."""
        os.close(self._owner)

    def scan(self) -> list[SessionRecord]:
        """All records; damaged ones are left alone and logged, files that no record names are removed."""
        found = (self.read(session_id) for session_id in sorted(self.names()))
        records = [record for record in found if record is not None]
        self._sweep(records)
        return records

    def names(self) -> set[str]:
        """Ids of all records there are."""
        return {path.stem for path in self.folder.glob("*.json") if _ID.fullmatch(path.stem)}

    def read(self, session_id: str) -> SessionRecord | None:
        """A record; None, and a line in the log, for a damaged one."""
        path = self._record_path(session_id)
        try:
            record = record_from_json(read_json(path), str(path))
            if record.session_id != session_id or not self.state_path(record).is_file():
                raise CheckpointError(f"{path} names a state that is not there")
        except CheckpointError as error:
            log.error("a saved session cannot be used: %s", error)
            return None
        return record

    def _sweep(self, records: list[SessionRecord]) -> None:
        """Remove what a kill left behind; states of damaged records stay for a person to look at."""
        named = {record.file for record in records}
        damaged = {p.stem for p in self.folder.glob("*.json")} - {r.session_id for r in records}
        for path in self.folder.iterdir():
            match = _STATE_FILE.fullmatch(path.name)
            if path.name.endswith(".tmp") or (
                match and path.name not in named and match[1] not in damaged
            ):
                path.unlink(missing_ok=True)

    def save(self, record: SessionRecord, state: StreamState, spare: int = 0) -> None:
        """Write a session; on failure raises CheckpointError and what was there before stays.

        Fills in the record's `file`. `spare` bytes of the folder's budget are left to others.
        """
        older = record.file
        with self._lock:
            used = self.used_bytes()
        wanted = state.decoder.num_bytes
        if used + wanted + spare > self.max_bytes:
            raise CheckpointError(
                f"the snapshot of about {wanted} bytes does not fit: {used} of {self.max_bytes} bytes are used; "
                f"delete snapshots, or raise --max-snapshot-bytes"
            )
        name = f"{record.session_id}.{secrets.token_hex(4)}.safetensors"
        path = self.folder / name
        save_snapshot(path, state, self.model)
        record.file = name
        try:
            with atomic_path(self._record_path(record.session_id)) as temporary:
                temporary.write_text(json.dumps(record.to_json()))
        except OSError as error:
            record.file = older
            path.unlink(missing_ok=True)
            raise CheckpointError(f"cannot write the record of a session: {error}") from error
        if older is not None:
            (self.folder / older).unlink(missing_ok=True)

    def delete(self, record: SessionRecord) -> None:
        """Forget a session; the record goes first, so that a kill leaves only a file to sweep."""
        self._record_path(record.session_id).unlink(missing_ok=True)
        if record.file is not None:
            (self.folder / record.file).unlink(missing_ok=True)

    def used_bytes(self) -> int:
        """Bytes of all files in the folder."""
        total = 0
        for entry in os.scandir(self.folder):
            try:
                total += entry.stat().st_size
            except FileNotFoundError:  # replaced in the meantime
                continue
        return total

    def _record_path(self, session_id: str) -> Path:
        if not _ID.fullmatch(session_id):
            raise CheckpointError(f"{session_id!r} is no id that this server made")
        return self.folder / f"{session_id}.json"

    def state_path(self, record: SessionRecord) -> Path:
        """The file of a record's state; raises CheckpointError where it names none."""
        if record.file is None or not _STATE_FILE.fullmatch(record.file):
            raise CheckpointError(f"the record of {record.session_id} names no state file")
        return self.folder / record.file
