"""A process of its own that runs the toy model over a benchmark: `run_toy.py DATA OUT DELAY_S`.

Reads RANK and WORLD_SIZE as torchrun sets them. Prints how often it asked.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from spatial_ttt.eval.benchmarks import FrameSampling, load_benchmark
from spatial_ttt.eval.evaluate import RunSettings, Worker, run_benchmark
from tests.eval.toy import ToyModel

SETTINGS = RunSettings(sampling=FrameSampling(fps=4.0, height=48, width=64))

if __name__ == "__main__":
    data, out, delay_s = sys.argv[1:]
    model = ToyModel(delay_s=float(delay_s))
    worker = Worker(
        rank=int(os.environ.get("RANK", "0")),
        world_size=int(os.environ.get("WORLD_SIZE", "1")),
        poll_s=0.05,
        patience_s=30,
    )
    run_benchmark(model, load_benchmark("vsi-bench", Path(data)), Path(out), SETTINGS, worker)
    print(model.log.count("ask"))
