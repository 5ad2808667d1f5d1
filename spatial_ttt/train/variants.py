"""Published and unpublished ablations at one budget: a run of the small model per variant and seed."""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spatial_ttt.errors import ConfigError

log = logging.getLogger(__name__)

VARIANTS: dict[str, tuple[str, ...]] = {
    "whole": (),
    "no_convolution": ("--ttt", "convolution=none"),
    "window": ("--attention", "window"),
    "full": ("--attention", "full"),
    "no_anchors": ("--ttt", 'layer_pattern=["ttt"]'),
    "no_muon": ("--ttt", "use_muon=false"),
    "no_momentum": ("--ttt", "use_momentum=false"),
    "pre_norm": ("--ttt", "norm_placement=pre"),
    "chunk_256": ("--ttt", "chunk_size=256", "--ttt", "window_size=256"),
    "not_annealed": ("--attention", "hybrid"),
    "no_dense": ("--dense", "0", "--plan", "plain"),
}
"""What each variant changes on the command line of `spatial_ttt.train.tiny`.

Chunks of 64 cannot be had: questions of up to 96 tokens are read without writing, so they must fit an open chunk.
"""


def command(name: str, seed: int, work: Path, common: Sequence[str]) -> list[str]:
    """What runs one variant."""
    if name not in VARIANTS:
        raise ConfigError(f"no variant {name!r}; known: {', '.join(VARIANTS)}")
    if not 0 <= seed < 1 << 20:
        raise ConfigError(f"a seed must be within 0..{(1 << 20) - 1}, got {seed}")
    module = [sys.executable, "-m", "spatial_ttt.train.tiny", "--work", str(work)]
    return [*module, "--seed", str(seed), *common, *VARIANTS[name]]


def result(metrics: Path, name: str, seed: int) -> dict[str, Any]:
    """One line of the results: what was done, and the last scores on held-out homes, with and without video."""
    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps = [record for record in records if "loss" in record]
    probes = {r["probe"]: r["scores"] for r in records if "probe" in r and "blind" in r["scores"]}
    if not steps or not probes:
        raise ConfigError(f"{metrics} holds no whole run; look at the log beside it")
    last = steps[-1]
    return {
        "variant": name,
        "seed": seed,
        "steps": max(record["step"] for record in records),
        "clips": last["clips_made"],
        "seconds": records[-1]["seconds"],
        "means": {stage: _means(scores) for stage, scores in probes.items()},
        "scores": probes,
    }


def _means(scores: dict[str, dict[str, list[float]]]) -> dict[str, float]:
    """Mean over types of each way of asking."""
    return {
        how: round(sum(row[0] for row in by_kind.values()) / len(by_kind), 4)
        for how, by_kind in scores.items()
        if by_kind
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run variants one after the other; 0 when all ended as planned."""
    parser = argparse.ArgumentParser(
        prog="python runs/variants.py",
        description=__doc__,
        epilog="what follows -- goes to every run (see python -m spatial_ttt.train.tiny --help)",
    )
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--work", type=Path, default=Path("runs/output/variants"))
    parser.add_argument("--results", type=Path, default=Path("runs/output/variants.jsonl"))
    given = list(sys.argv[1:] if arguments is None else arguments)
    cut = given.index("--") if "--" in given else len(given)
    chosen, common = parser.parse_args(given[:cut]), given[cut + 1 :]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    failed = 0
    for seed in chosen.seeds:
        for name in chosen.variants:
            failed += not _run(name, seed, chosen, common)
    return 1 if failed else 0


def _run(name: str, seed: int, chosen: argparse.Namespace, common: Sequence[str]) -> bool:
    """One variant; its line is appended to the results."""
    work: Path = chosen.work / f"{name}-{seed}"
    work.mkdir(parents=True, exist_ok=True)
    metrics = work / "metrics.jsonl"
    metrics.unlink(missing_ok=True)
    with (work / "log.txt").open("w") as output:
        code = subprocess.call(command(name, seed, work, common), stdout=output, stderr=output)
    if code:
        log.error("%s, seed %d: ended with %d; see %s", name, seed, code, work / "log.txt")
        return False
    found = result(metrics, name, seed)
    chosen.results.parent.mkdir(parents=True, exist_ok=True)
    with chosen.results.open("a") as lines:
        lines.write(json.dumps(found) + "\n")
    log.info("%s, seed %d: %d steps, %s", name, seed, found["steps"], found["means"])
    return True


if __name__ == "__main__":
    sys.exit(main())
