"""Every measurement of `train_2b.py`, a process each, side by side on the GPUs there are.

    python benchmarks/train_2b_all.py --gpus-each 1 --limit 120 --out FILE --logs FOLDER
    python benchmarks/train_2b_all.py --gpus-each 2 --limit 100 --out FILE --logs FOLDER

Where memory runs out, or the time, the other lines are there.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from spatial_ttt.train.at_once import AtOnce, Ended, Job, visible_gpus

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "train_2b.py"
SETTINGS: dict[int, dict[str, str]] = {
    1: {
        "ours": "--model ours --checkpointed none --cases 2:64 2:128 1:32",
        "stock": "--model stock --checkpointed none --cases 2:64 2:128",
        "ours-cudnn": "--model ours --checkpointed none --attention cudnn --cases 2:128 --max-tokens 24000",
        "ours-checkpointed": "--model ours --checkpointed all --cases 2:64 2:128 --max-tokens 24000 65536",
        "stock-checkpointed": "--model stock --checkpointed all --cases 2:64 2:128 --max-tokens 24000 65536",
        "ours-eager": "--model ours --checkpointed none --no-compile --cases 2:128 --max-tokens 12000",
    },
    2: {
        "ours": "--model ours --checkpointed none --cases 2:64 2:128 --max-tokens 12000",
        "stock": "--model stock --checkpointed none --cases 2:64 2:128 --max-tokens 12000",
    },
}
"""By GPUs each: what is measured, what matters most first."""


def main() -> int:
    """Measure; 0 when everything ended as planned."""
    options = parse()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    gpus, each = ([] if options.tiny else visible_gpus()), options.gpus_each
    groups = [gpus[at : at + each] for at in range(0, len(gpus) - each + 1, each)]
    places = [place(group) for group in groups] or [place([])]
    ends: list[Ended] = []
    runner = AtOnce(places, ends.append, lambda _: "runs", options.limit)
    jobs = [job(name, words, options) for name, words in SETTINGS[each].items()]
    all_ended = runner.run(jobs)
    for end in ends:
        logging.info("%s: %s after %.0f s", end.job.name, end.code or "done", end.seconds)
    return 0 if all_ended and not any(end.code for end in ends) else 1


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus-each", type=int, choices=list(SETTINGS), default=1)
    parser.add_argument("--limit", type=float, default=0.0, help="end all after so many seconds")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--commit", default=None)
    parser.add_argument("--tiny", action="store_true", help="a toy model on the CPU")
    parser.add_argument("--logs", type=Path, default=ROOT / "runs" / "output" / "train_2b")
    parser.add_argument("--out", type=Path, default=SCRIPT.parent / "results" / "train_2b.jsonl")
    return parser.parse_args()


def place(gpus: list[str]) -> dict[str, str]:
    """What a process group adds to its environment."""
    threads = {"OMP_NUM_THREADS": "4" if gpus else "1", "PYTHONUNBUFFERED": "1"}
    if not gpus:
        return threads
    memory = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    return threads | memory | {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}


def job(name: str, words: str, options: argparse.Namespace) -> Job:
    """One process, or one of torchrun's groups."""
    each = options.gpus_each
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(each)]
    command = [sys.executable, *(torchrun if each > 1 else []), str(SCRIPT), *words.split()]
    command += ["--steps", str(options.steps), "--out", str(options.out)]
    commit = options.commit or os.environ.get("SPATIAL_TTT_COMMIT")
    command += (["--commit", commit] if commit else []) + (["--tiny"] if options.tiny else [])
    return Job(f"{name}-x{each}", tuple(command), options.logs / f"{name}-x{each}.txt")


if __name__ == "__main__":
    sys.exit(main())
