"""What every benchmark line says about where it was measured."""

from __future__ import annotations

import json
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Commit, machine and versions; missing parts are null."""
    import torch

    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("transformers", "triton"):
        try:
            versions[name] = __import__(name).__version__
        except ImportError:
            versions[name] = None
    on_gpu = torch.cuda.is_available()
    device = (
        torch.cuda.get_device_name()
        if on_gpu
        else f"{platform.processor() or platform.machine()} CPU"
    )
    stamp = datetime.now(UTC).isoformat(timespec="seconds")
    return {"commit": commit or None, "device": device, "versions": versions, "time": stamp}


def append(path: Path, lines: list[dict[str, Any]]) -> None:
    """Add JSON lines to a results file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for line in lines:
            file.write(json.dumps(line) + "\n")
