"""What lies in a GPU's memory when most does: a clip watched and a question answered, by line of code.

python benchmarks/peak_memory.py --frames 384 --slots-per-piece 32
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from spatial_ttt.bench.clock import GIB
from spatial_ttt.bench.plan import BenchPlan
from spatial_ttt.bench.prefill import read_clip
from spatial_ttt.bench.rig import open_rig
from spatial_ttt.bench.subject import open_subject

MIB = 2**20


def main() -> int:
    """Print the peak, and what made the tensors that were there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=384)
    parser.add_argument("--slots-per-piece", type=int, default=32)
    parser.add_argument("--rows", type=int, default=30)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("a CUDA device is wanted: nobody counts the bytes of a CPU")
    plan = BenchPlan(modes=("exact",), slots_per_piece=options.slots_per_piece)
    subject = open_subject("spatial_ttt_2b", (352, 480), torch.device("cuda"), torch.bfloat16)
    rig = open_rig(plan, subject, "exact")
    with torch.no_grad():
        ingest = rig.open()
        read_clip(rig, ingest, options.frames)
        ingest.restart()
        before = torch.cuda.memory_allocated()
        torch.cuda.memory._record_memory_history(max_entries=4_000_000, stacks="python")
        read_clip(rig, ingest, options.frames)
        events = torch.cuda.memory._snapshot()["device_traces"][torch.cuda.current_device()]
    peak, live = at_the_peak(events)
    print(f"{before / GIB:.3f} GiB before, {(before + peak) / GIB:.3f} at most")
    for where, size in live.most_common(options.rows):
        print(f"{size / MIB:9.1f} MiB  {where}")
    return 0


def at_the_peak(events: list[dict[str, Any]]) -> tuple[int, Counter[str]]:
    """The most bytes at once, and bytes by the lines that made them then."""
    most, last = max((total, number) for number, total in enumerate(running(events)))
    live: dict[int, dict[str, Any]] = {}
    for event in events[: last + 1]:
        if event["action"] == "alloc":
            live[event["addr"]] = event
        elif event["action"] == "free_requested":
            live.pop(event["addr"], None)
    by_line: Counter[str] = Counter()
    for event in live.values():
        by_line[line_of(event)] += event["size"]
    return most, by_line


def running(events: list[dict[str, Any]]) -> list[int]:
    """Bytes after each event, of what was made while they were recorded."""
    totals, known, total = [], {}, 0
    for event in events:
        if event["action"] == "alloc":
            known[event["addr"]] = event["size"]
            total += event["size"]
        elif event["action"] == "free_requested":
            total -= known.pop(event["addr"], 0)
        totals.append(total)
    return totals


def line_of(event: dict[str, Any]) -> str:
    """The two innermost lines of ours that led to it."""
    ours = [f for f in event["frames"] if "spatial_ttt" in f["filename"]]
    named = [f"{Path(f['filename']).name}:{f['line']} {f['name']}" for f in ours[:2]]
    return " < ".join(named) or "elsewhere"


if __name__ == "__main__":
    sys.exit(main())
