"""What a build remembers of its finished parts: files with checksums, in a file written last.

A part (a shard, or a stream) counts as done when its part file is there and every file it lists has
its size. So a build killed at any moment goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from spatial_ttt import __version__
from spatial_ttt.scenes.build_plan import BUILD_FORMAT, check_same_settings
from spatial_ttt.scenes.examples import PoolLine, pool_line_from_json
from spatial_ttt.scenes.shards import file_sha256, remove_leftovers, write_atomic

SETTINGS_NAME, MANIFEST_NAME, EXAMPLES_NAME = "build.json", "manifest.json", "examples.jsonl"


def prepare(out: Path, settings: dict[str, Any]) -> None:
    """Begin or go on with a build in `out`; refuse one of other settings; clear what was cut off."""
    path = out / SETTINGS_NAME
    if path.exists():
        check_same_settings(path, settings)
    else:
        write_atomic(path, json_bytes(settings))
    remove_leftovers(out)


def write_part(
    out: Path, name: str, pool: Iterable[PoolLine], files: Iterable[Path], facts: dict[str, Any]
) -> None:
    """Record a finished part: its texts, then its files and `facts`, last of all."""
    lines = "".join(json.dumps(line.to_json()) + "\n" for line in pool)
    texts = out / "parts" / f"{name}.jsonl"
    write_atomic(texts, lines.encode())
    record = {"format": BUILD_FORMAT, **facts, "files": file_facts(out, [*files, texts])}
    write_atomic(out / "parts" / f"{name}.json", json_bytes(record))


def read_part(out: Path, name: str) -> dict[str, Any] | None:
    """What a whole shard's part file says; None if the shard is not there in full."""
    try:
        record: dict[str, Any] = json.loads((out / "parts" / f"{name}.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    for path, facts in record["files"].items():
        file = out / path
        if not file.is_file() or file.stat().st_size != facts["bytes"]:
            return None
    return record


def read_pool(out: Path, name: str) -> list[PoolLine]:
    """The texts of a finished part."""
    lines = (out / "parts" / f"{name}.jsonl").read_text().splitlines()
    return [pool_line_from_json(json.loads(line)) for line in lines]


def file_facts(out: Path, paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Size and checksum of files, by their path from `out`."""
    return {
        path.relative_to(out).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": file_sha256(path),
        }
        for path in paths
    }


def versions() -> dict[str, str]:
    """The versions that bytes may depend on."""
    names = ("av", "moderngl", "numpy")
    return {"spatial_ttt": __version__} | {name: metadata.version(name) for name in names}


def json_bytes(record: dict[str, Any]) -> bytes:
    """A record as a small readable JSON file."""
    return (json.dumps(record, indent=1) + "\n").encode()
