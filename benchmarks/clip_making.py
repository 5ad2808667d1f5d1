"""What a training clip costs its scene worker: processor milliseconds a clip, by stage and part.

    python benchmarks/clip_making.py [--clips 64] [--stages look,room,home] [--out FILE]

One process films homes and asks about them as a worker of `spatial_ttt.train.pool` does. What the
cameras saw is drawn in between, outside of the timed part.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import record

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a plain checkout

from spatial_ttt.eval.profiles import load_profile
from spatial_ttt.presets import TINY_VOCAB_SIZE
from spatial_ttt.scenes.homes import home_seed
from spatial_ttt.scenes.renderer import Renderer
from spatial_ttt.tokenizer import default_texts, train_tokenizer
from spatial_ttt.train import dense_facts, scene_worker
from spatial_ttt.train.clip_types import MAX_OBJECTS, FilmedHomes, SceneTask, Sighting
from spatial_ttt.train.curriculum import Stage, plan
from spatial_ttt.train.scene_worker import SceneWorker

TASK = 8  # homes at a time, as in a run
PARTS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "make_home": (scene_worker, ("make_home",)),
    "walk": (scene_worker, ("film_path",)),
    "pack": (scene_worker, ("pack_parts", "pack_views")),
    "observe": (scene_worker, ("observe",)),
    "generate": (scene_worker, ("generate_fair",)),
    "dense_facts": (dense_facts, ("exchanges", "facts")),
    "tokenise": (SceneWorker, ("_pack",)),
}
Line = dict[str, Any]


class Clock:
    """Adds up the processor seconds spent in the functions it is put around."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def attach(self) -> None:
        """Put the clock around every part's functions, for the rest of the process."""
        for part, (owner, names) in PARTS.items():
            for name in names:
                setattr(owner, name, self._around(part, getattr(owner, name)))

    def _around(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds[part] += time.thread_time() - began

        return timed


def new_worker() -> SceneWorker:
    """A worker with a freshly trained tokenizer, as `spatial_ttt.train.tiny` starts it."""
    profile = load_profile("paper")
    with TemporaryDirectory() as folder:
        train_tokenizer(default_texts(), TINY_VOCAB_SIZE).save_pretrained(folder)
        file = str(Path(folder) / "tokenizer.json")
        return SceneWorker(file, profile.number, profile.choice)


def look_at(worker: SceneWorker, filmed: FilmedHomes, renderer: Renderer) -> list[Sighting]:
    """What the cameras of filmed homes saw."""
    sightings = []
    for home in filmed.homes:
        kept = worker.kept[home.ticket]
        seen = renderer.visibility(kept.home.parts, kept.camera)
        pixels = np.zeros((len(seen.times), MAX_OBJECTS), np.int32)
        pixels[:, seen.object_ids] = seen.pixels
        sightings.append(Sighting(home.ticket, pixels))
    return sightings


def measure(worker: SceneWorker, stage: Stage, clips: int, clock: Clock) -> Line:
    """Milliseconds a clip of one stage."""
    seconds: dict[str, float] = defaultdict(float)
    failed = questions = 0
    first = home_seed("train", 1 << 20)
    with Renderer(stage.spec.width, stage.spec.height) as renderer:
        for number in range(-1, -(-clips // TASK)):  # the first task only warms up
            if number == 0:
                clock.seconds.clear()
                seconds.clear()
                failed = questions = 0
            seeds = tuple(range(first + number * TASK, first + (number + 1) * TASK))
            task = SceneTask(number, seeds, stage.spec, stage.difficulty, stage.branch_length)
            began = time.thread_time()
            filmed = worker.film(task)
            seconds["film"] += time.thread_time() - began
            sightings = look_at(worker, filmed, renderer)
            began = time.thread_time()
            asked = worker.ask(sightings)
            seconds["ask"] += time.thread_time() - began
            failed += len(filmed.failures) + len(asked.failures)
            questions += sum(len(item.exchanges) for item in asked.records)
    made = -(-clips // TASK) * TASK
    parts = {part: round(1e3 * clock.seconds[part] / made, 3) for part in PARTS}
    whole = {what: round(1e3 * spent / made, 2) for what, spent in seconds.items()}
    total = round(1e3 * sum(seconds.values()) / made, 2)
    counted = {"clips": made, "failed": failed, "questions": round(questions / made, 1)}
    return {"stage": stage.name, "ms": total, **whole, "parts": parts, **counted}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--stages", default="look,room,home")
    parser.add_argument("--out", type=Path, default=record.RESULTS / "clip_making.jsonl")
    options = parser.parse_args()
    wanted = options.stages.split(",")
    clock, worker = Clock(), new_worker()
    clock.attach()
    lines = [
        measure(worker, stage, options.clips, clock)
        for stage in plan("full")
        if stage.name in wanted
    ]
    about = {"what": "clip making", "load": round(os.getloadavg()[0], 1)} | record.machine()
    record.append(options.out, [{**line, **about} for line in lines])
    for line in lines:
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
