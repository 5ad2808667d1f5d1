"""How fast questions and descriptions are made, and what a viewer who does not look would score.

    python benchmarks/questions.py [--homes 200] [--out FILE]

Furnished homes are walked through and drawn at 128x96 and one frame a second, only to know what was
seen. Times are per walk and processor core; blind scores are of the pool before and after `balance`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import record

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a plain checkout

from spatial_ttt.scenes.describe import describe, parse_description
from spatial_ttt.scenes.homes import home_seed, make_home
from spatial_ttt.scenes.questions import (
    GENERATORS,
    Question,
    balance,
    blind_scores,
    observe,
)
from spatial_ttt.scenes.questions.balance import group_by_type
from spatial_ttt.scenes.renderer import Renderer
from spatial_ttt.scenes.walk import walk

PER_TYPE = 2
Line = dict[str, Any]


def make_pool(homes: int) -> tuple[list[Question], Counter[str]]:
    """Questions about so many homes, and the seconds each step took in all."""
    pool: list[Question] = []
    seconds: Counter[str] = Counter()
    with Renderer(128, 96) as renderer:
        for index in range(homes):
            home = make_home(home_seed("train", index))
            camera = walk(home, 0, width=128, height=96, fps=1.0)
            visibility = renderer.visibility(home.parts, camera)
            rng = np.random.default_rng(index)
            clock = time.thread_time()
            seen = observe(home.scene, visibility, camera)
            clock = _lap(seconds, "observe", clock)
            for kind, generator in GENERATORS.items():
                pool += generator(seen, rng, PER_TYPE)
                clock = _lap(seconds, kind, clock)
            description = describe(seen, rng)
            _lap(seconds, "describe", clock)
            if parse_description(description.text) != description.facts:
                raise SystemExit(f"home {index}: the description does not read back")
    return pool, seconds


def _lap(seconds: Counter[str], what: str, clock: float) -> float:
    now = time.thread_time()
    seconds[what] += now - clock
    return now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--homes", type=int, default=200)
    parser.add_argument("--out", type=Path, default=record.RESULTS / "questions.jsonl")
    options = parser.parse_args()
    pool, seconds = make_pool(options.homes)
    per_walk = {what: round(1e3 * total / options.homes, 3) for what, total in seconds.items()}
    lines: list[Line] = [
        {"what": "ms per walk", "all": round(sum(per_walk.values()), 2), **per_walk}
    ]
    for name, some in (("pool", pool), ("balanced", balance(pool, np.random.default_rng(0)))):
        groups = group_by_type(some)
        for kind, (score, chance) in sorted(blind_scores(some).items()):
            counted = {"questions": len(groups[kind]), "blind": round(score, 4)}
            lines.append({"what": name, "kind": kind, "chance": round(chance, 4), **counted})
    about = record.machine()
    record.append(options.out, [{"homes": options.homes, **line, **about} for line in lines])
    for line in lines:
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
