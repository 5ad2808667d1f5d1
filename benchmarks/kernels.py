"""Are the kernels right, how fast are they, and what does a training step with fast weights cost?

    python benchmarks/kernels.py                      # on a GPU: checks, timings, training steps; a few minutes
    python benchmarks/kernels.py --tiny               # on a CPU: the same code at toy sizes; seconds
    python benchmarks/kernels.py --only newton_schulz step --out somewhere/kernels.jsonl
    SPATIAL_TTT_COMMIT=abc1234 python benchmarks/kernels.py       # where the tree was copied without its history

`tune` sweeps the scan's tile sizes, `profile` writes a step's kernels by time beside --out; neither runs unasked.
Every section runs in a process of its own, so that a kernel that breaks the device stops nothing else.
Appends JSON lines {section, case, variant, ..., commit, machine, versions} to benchmarks/results/kernels.jsonl.
Errors are |x - ref| / |ref| against the plain formula in float64, times are medians.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SECTIONS = (
    "newton_schulz",
    "convolution",
    "network",
    "scan",
    "mixing",
    "heads",
    "attention",
    "products",
    "step",
)
UNASKED = ("tune", "profile")
SECTION_LIMIT = 420  # seconds


def main() -> int:
    """Run the asked sections one after the other; 1 when any failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/kernels.jsonl")
    parser.add_argument("--only", nargs="+", choices=SECTIONS + UNASKED, default=SECTIONS)
    parser.add_argument("--device", default=None, help="cuda where there is one, else cpu")
    parser.add_argument("--tiny", action="store_true", help="toy sizes")
    parser.add_argument(
        "--in-process", action="store_true", help="one section here and now, for debugging"
    )
    arguments = parser.parse_args()
    if arguments.in_process:
        return run_section(arguments)
    failed = []
    for section in arguments.only:
        command = [
            sys.executable,
            __file__,
            "--in-process",
            "--only",
            section,
            "--out",
            str(arguments.out),
        ]
        command += ["--tiny"] * arguments.tiny
        command += ["--device", arguments.device] if arguments.device else []
        try:
            code = subprocess.run(command, timeout=SECTION_LIMIT).returncode
        except subprocess.TimeoutExpired:
            code = 124
        if code:
            failed.append(f"{section} ({code})")
    print(f"failed: {', '.join(failed)}" if failed else "all sections ran", flush=True)
    return 1 if failed else 0


def run_section(arguments: argparse.Namespace) -> int:
    """One section in this process."""
    import torch

    from benchmarks.kernel_cases import Bench, run

    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("a") as file:
        where = stamp(device)

        def record(line: dict[str, Any]) -> None:
            file.write(json.dumps(line | where) + "\n")
            file.flush()

        bench = Bench(device, arguments.tiny, record, arguments.out.parent)
        run(arguments.only[0], bench)
    return 1 if bench.failures else 0


def stamp(device: Any) -> dict[str, Any]:
    """Commit, machine and versions of every line."""
    from spatial_ttt.bench.record import surroundings

    found = surroundings(device)
    return found | {"machine": found.pop("device")}


if __name__ == "__main__":
    sys.exit(main())
