"""JSON lines: where a figure was measured, and each line on disk as soon as it is known."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from spatial_ttt.errors import ConfigError

COMMIT = "SPATIAL_TTT_COMMIT"
"""Variable that names the commit of a tree that was copied without its history."""

NAMED = ("torch", "triton", "transformers", "nvidia-cudnn-frontend")
"""Packages whose versions a figure depends on; null where one is not installed."""

Line = dict[str, Any]
"""At least what, mode, frames, seconds_to_first_token, peak_gib, device and commit; null where unknown."""


def surroundings(device: torch.device, commit: str | None = None) -> Line:
    """Commit, device and versions; `commit`, or SPATIAL_TTT_COMMIT, stands in where there is no repository."""
    return {
        "commit": commit or os.environ.get(COMMIT) or _commit(),
        "device": _device_name(device),
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in NAMED},
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None


def _version(name: str) -> str | None:
    try:
        return torch.__version__ if name == "torch" else version(name)
    except PackageNotFoundError:
        return None


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()} CPU"


def check_writable(out: Path | None, plots: Path | None) -> None:
    """Make the folders of what will be written; raise ConfigError where that, or writing, is refused."""
    for path, folder in ((out, out.parent if out else None), (plots, plots)):
        if path is None or folder is None:
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cannot make the folder {folder}: {error.strerror}; name another"
            ) from error
        target = path if path == out and path.exists() else folder
        if path == out and path.is_dir():
            raise ConfigError(f"{path} is a folder; --out wants a file of JSON lines")
        if not os.access(target, os.W_OK):
            raise ConfigError(f"{target} is not writable; name another place for the results")


def append(out: Path | None, line: Line) -> None:
    """Add one JSON line to a file."""
    if out is not None:
        with out.open("a") as file:
            file.write(json.dumps(line) + "\n")
