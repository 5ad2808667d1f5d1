"""Published and unpublished ablations at one budget: a run of the small model per variant and seed, many at once."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spatial_ttt.errors import ConfigError
from spatial_ttt.train import variant_table
from spatial_ttt.train.at_once import AtOnce, Ended, Job, append_line, slots, visible_gpus

log = logging.getLogger(__name__)

VARIANTS: dict[str, tuple[str, ...]] = {
    "whole": (),
    "no_convolution": ("--ttt", "convolution=none"),
    "no_dense": ("--dense", "0"),
    "no_anchors": ("--ttt", 'layer_pattern=["ttt"]'),
    "no_memory": ("--ttt", 'layer_pattern=["ttt"]', "--attention", "annealed_window"),
    "window": ("--attention", "annealed_window"),
    "full": ("--attention", "full"),
    "no_muon": ("--ttt", "use_muon=false"),
    "pre_norm": ("--ttt", "norm_placement=pre"),
    "chunk_256": ("--ttt", "chunk_size=256", "--ttt", "window_size=256"),
    "not_annealed": ("--attention", "hybrid"),
    "no_momentum": ("--ttt", "use_momentum=false"),
}
"""What each variant changes on the command line of `spatial_ttt.train.tiny`.

Chunks of 64 cannot be had: questions of up to 96 tokens are read without writing, so they must fit an open
chunk, and shorter ones would be other questions. "no_dense" has neither read-outs nor dense exchanges;
"no_memory" has neither anchors nor fast weights: what lies beyond its windows is gone.
"""

DEFAULT = tuple(name for name in VARIANTS if name not in ("no_momentum", "not_annealed"))
"""Ten, so that two seeds of each fit twenty processes."""


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
    records = read(metrics)
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


def read(metrics: Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics.jsonl, also while it is written."""
    if not metrics.exists():
        return []
    text = metrics.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def _means(scores: dict[str, dict[str, list[float]]]) -> dict[str, float]:
    """Mean over types of each way of asking."""
    return {
        how: round(sum(row[0] for row in by_kind.values()) / len(by_kind), 4)
        for how, by_kind in scores.items()
        if by_kind
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run variants, or show what was found; 0 when all ended as planned."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    cut = given.index("--") if "--" in given else len(given)
    chosen, common = _parser().parse_args(given[:cut]), given[cut + 1 :]
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout, force=True
    )
    if chosen.table:
        return variant_table.show(chosen.results, chosen.plot, list(VARIANTS))
    gpus = [] if chosen.no_gpu else visible_gpus()
    places = slots(chosen.at_once, gpus, os.cpu_count() or 1)
    runs = Runs(chosen.work, chosen.results, {"commit": chosen.commit, "arguments": common})
    jobs = [runs.job(name, seed) for seed in chosen.seeds for name in chosen.variants]
    log.info("%d runs, %d at once, GPUs: %s", len(jobs), len(places), ", ".join(gpus) or "none")
    all_ended = AtOnce(places, runs.ended, runs.describe, chosen.limit).run(jobs)
    log.info("%d of %d runs have results in %s", runs.done, len(jobs), chosen.results)
    return 0 if all_ended and runs.done == len(jobs) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python runs/variants.py",
        description=__doc__,
        epilog="what follows -- goes to every run (see python -m spatial_ttt.train.tiny --help); a budget of steps "
        "(--max-steps) is fair also where runs share a GPU",
    )
    parser.add_argument("--variants", nargs="+", default=list(DEFAULT), choices=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--at-once", type=int, default=1, help="processes, dealt out to the GPUs")
    parser.add_argument("--no-gpu", action="store_true", help="give the runs no GPU of their own")
    parser.add_argument("--limit", type=float, default=0.0, help="end all after so many seconds")
    parser.add_argument("--commit", help="of this code, where there is no repository")
    parser.add_argument("--work", type=Path, default=Path("runs/output/variants"))
    parser.add_argument("--results", type=Path, default=Path("runs/output/variants.jsonl"))
    parser.add_argument("--table", action="store_true", help="show the results and run nothing")
    parser.add_argument("--plot", type=Path, help="with --table: a picture of them, too")
    return parser


class Runs:
    """The runs of one call, by the name of their job."""

    def __init__(self, work: Path, results: Path, about: dict[str, Any]) -> None:
        """`about` stands in every line of the results."""
        self.work, self.results, self.about = work, results, about
        self.runs: dict[str, tuple[str, int]] = {}
        self.done = 0

    def job(self, name: str, seed: int) -> Job:
        """A run in a folder of its own."""
        known = f"{name}-{seed}"
        self.runs[known] = (name, seed)
        folder = self.work / known
        folder.mkdir(parents=True, exist_ok=True)
        self._metrics(known).unlink(missing_ok=True)
        line = command(name, seed, folder, self.about["arguments"])
        return Job(known, tuple(line), folder / "log.txt")

    def _metrics(self, known: str) -> Path:
        return self.work / known / "metrics.jsonl"

    def describe(self, job: Job) -> str:
        """How many steps a run has made."""
        records = read(self._metrics(job.name))
        return str(records[-1]["step"]) if records else "begins"

    def ended(self, end: Ended) -> None:
        """Note what a run found."""
        if end.code:
            return
        name, seed = self.runs[end.job.name]
        try:
            found = result(self._metrics(end.job.name), name, seed)
        except ConfigError as error:
            log.error("%s: %s", end.job.name, error)
            return
        append_line(self.results, json.dumps(found | self.about))
        self.done += 1
        log.info(
            "%s: %d steps in %.0f s, %s", end.job.name, found["steps"], end.seconds, found["means"]
        )


if __name__ == "__main__":
    sys.exit(main())
