"""How fast the whole data pipeline runs: homes, walks, drawing, three clips, texts, shards.

    python benchmarks/data_pipeline.py [--scenes 16] [--workers 2] [--out FILE]

`fps` is whole-build frames per second by the clock, start-up included. `core_ms` is processor time
per frame over all processes: on n free cores the rate tends to n * 1000 / core_ms, which is what
counts when other work runs on the machine (`load`).
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import record

from spatial_ttt.scenes.build import build
from spatial_ttt.scenes.build_plan import BuildConfig


def processor_seconds() -> float:
    """Processor time of this process and its ended children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(scenes: int, workers: int, size: tuple[int, int]) -> dict[str, Any]:
    """One line: a build of `scenes` homes at `size` with both small sizes."""
    config = BuildConfig(
        train_scenes=scenes,
        val_scenes=0,
        test_scenes=0,
        width=size[0],
        height=size[1],
        scenes_per_shard=2,
    )
    with tempfile.TemporaryDirectory() as folder:
        cpu, clock = processor_seconds(), time.perf_counter()
        report = build(config, Path(folder), workers=workers)
        seconds, cpu = time.perf_counter() - clock, processor_seconds() - cpu
        written = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return {
        "what": "data build",
        "size": list(size),
        "small_sizes": [list(small) for small in config.small_sizes],
        "scenes": scenes,
        "workers": workers,
        "frames": report.frames,
        "seconds": round(seconds, 2),
        "fps": round(report.frames / seconds, 1),
        "core_ms": round(1000 * cpu / report.frames, 3),
        "bytes_per_frame": round(written / report.frames),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--size", default="480x352")
    parser.add_argument("--out", type=Path, default=record.RESULTS / "data_pipeline.jsonl")
    arguments = parser.parse_args()
    width, _, height = arguments.size.partition("x")
    line = measure(arguments.scenes, arguments.workers, (int(width), int(height)))
    line |= {"load": round(os.getloadavg()[0], 1), "cores": os.cpu_count()}
    print(line)
    record.append(arguments.out, [{**record.machine(), **line}])


if __name__ == "__main__":
    main()
