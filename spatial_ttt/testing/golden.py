"""Check this package against golden tensors made by the authors' model.

    python -m spatial_ttt.testing.golden DIR [--device cuda]

prints one line per tensor with its worst error and limit, and exits 1 on a miss. A golden file holds
weights under the authors' names, inputs, and outputs per tag: `nsfp32` (Muon, float32 Newton-Schulz)
and `nomuon` are checked; `nsbf16` is informational and is left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from spatial_ttt.errors import DataError


@dataclass(frozen=True)
class Golden:
    """One golden file: tensors (float16 ones widened exactly to float32) and metadata."""

    name: str
    tensors: dict[str, Tensor]
    meta: dict[str, Any]

    def under(self, prefix: str) -> dict[str, Tensor]:
        """Tensors below `prefix/`, the prefix cut off."""
        return {
            k[len(prefix) + 1 :]: v for k, v in self.tensors.items() if k.startswith(f"{prefix}/")
        }


@dataclass(frozen=True)
class Check:
    """The worst error of one tensor against its limit."""

    file: str
    tensor: str
    error: float
    limit: float

    @property
    def passed(self) -> bool:
        """The error is a number within the limit."""
        return self.error <= self.limit


def load_golden(path: Path, device: str = "cpu") -> Golden:
    """Read a golden file; raises DataError when it is none."""
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        raw = file.metadata() or {}
    if "kind" not in raw:
        raise DataError(
            f"{path}: no 'kind' in the metadata; wanted a golden file (unit, layer or model)"
        )
    meta = {key: json.loads(value) for key, value in raw.items()}
    exact = {
        k: (v.float() if v.dtype == torch.float16 else v).to(device) for k, v in tensors.items()
    }
    return Golden(path.stem, exact, meta)


def absolute(actual: Tensor, expected: Tensor) -> float:
    """Largest absolute difference; infinite when a value is missing or not a number."""
    if actual.shape != expected.shape or not torch.isfinite(actual).all():
        return float("inf")
    return float((actual - expected).abs().max())


def relative(actual: Tensor, expected: Tensor) -> float:
    """Largest absolute difference over the largest expected magnitude."""
    return absolute(actual, expected) / max(float(expected.abs().max()), 1e-12)


def check_file(path: Path, device: str = "cpu") -> list[Check]:
    """All checks of one golden file."""
    from spatial_ttt.testing import golden_layer, golden_model, golden_unit

    golden = load_golden(path, device)
    kinds = {
        "unit": golden_unit.checks,
        "layer": golden_layer.checks,
        "model": golden_model.checks,
    }
    if golden.meta["kind"] not in kinds:
        raise DataError(f"{path}: kind {golden.meta['kind']!r}; known: {', '.join(kinds)}")
    return list(kinds[golden.meta["kind"]](golden))


def check_folder(folder: Path, device: str = "cpu") -> Iterator[Check]:
    """All checks of every golden file in a folder, in order."""
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise DataError(f"{folder}: no .safetensors files; give the folder of golden vectors")
    for path in paths:
        yield from check_file(path, device)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 0 when every tensor is within its limit."""
    parser = argparse.ArgumentParser(
        prog="python -m spatial_ttt.testing.golden", description=__doc__
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    checks = []
    try:
        for check in check_folder(options.folder, options.device):
            checks.append(check)
            verdict = "ok  " if check.passed else "MISS"
            sys.stdout.write(
                f"{verdict} {check.file:16s} {check.tensor:60s} {check.error:9.2e} / {check.limit:.0e}\n"
            )
    except DataError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    missed = sum(not check.passed for check in checks)
    sys.stdout.write(f"{len(checks) - missed} passed, {missed} failed\n")
    return 1 if missed or not checks else 0


if __name__ == "__main__":
    sys.exit(main())
