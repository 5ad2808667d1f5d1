"""Lines of benchmarks that are scripts: where they were measured, and where they are kept."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a plain checkout

import torch

from spatial_ttt.bench import record

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Commit, device and versions; missing parts are null."""
    return record.surroundings(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def append(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Add JSON lines to a results file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for line in lines:
        record.append(path, line)
