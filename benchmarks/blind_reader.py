"""What a viewer scores who read the questions of thousands of homes but never looks.

    python benchmarks/blind_reader.py [--homes 600] [--learn] [--out FILE]

Walks through furnished homes as in training's last stage. Half of the homes teach the viewer, the
other half test it, with questions as they come and with those of `generate_fair`, to which the viewer
adapts. `--learn` first writes the tables that `generate_fair` uses, from other homes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import record

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a plain checkout

from spatial_ttt.scenes.homes import home_seed
from spatial_ttt.scenes.questions import Question, generate, observe
from spatial_ttt.scenes.questions.balance import relative_accuracy
from spatial_ttt.scenes.questions.fair import generate_fair
from spatial_ttt.scenes.questions.guessing import GUESSED, TABLES, Guesser, learn
from spatial_ttt.scenes.questions.seen import Observation
from spatial_ttt.scenes.renderer import Renderer
from spatial_ttt.train.curriculum import plan
from spatial_ttt.train.scene_worker import QUESTION_LIMITS, make_walk

LEARNED_HOMES, LEARN_FROM, TEST_FROM = 3000, 1 << 22, 1 << 23
LEAST = 5  # numbers known of a category before its own constant is trusted


def observations(first: int, homes: int) -> list[tuple[int, Observation]]:
    """What the camera saw in `homes` training homes from number `first` on, with their seeds."""
    stage = next(stage for stage in plan("full") if stage.name == "home")
    seen = []
    with Renderer(stage.spec.width, stage.spec.height) as renderer:
        for number in range(first, first + homes):
            seed = home_seed("train", number)
            rng = np.random.default_rng((seed, 11))
            home, camera = make_walk(seed, stage.spec, stage.difficulty, rng)
            visibility = renderer.visibility(home.parts, camera)
            seen.append((seed, observe(home.scene, visibility, camera)))
    return seen


def write_tables() -> None:
    """The habits of homes that are used nowhere else."""
    many = {kind: 2 * limit for kind, limit in QUESTION_LIMITS.items() if kind in GUESSED}
    pool: list[Question] = []
    for seed, seen in observations(LEARN_FROM, LEARNED_HOMES):
        pool += generate(seen, np.random.default_rng((seed, 12)), many)
    TABLES.write_text(json.dumps(learn(pool), separators=(",", ":")) + "\n")


def scores(taught: Sequence[Question], asked: Sequence[Question]) -> dict[str, tuple[float, int]]:
    """Mean score 0..1 and number of questions, by type."""
    guesser = Guesser(learn(taught))
    numbers: dict[tuple[str, str], list[float]] = defaultdict(list)
    for question in taught:
        if question.options is None:
            for key in ((question.question_type, ""), _key(question)):
                numbers[key].append(float(question.ground_truth))
    constants = {key: _constant(values) for key, values in numbers.items()}
    points = defaultdict(list)
    for question in asked:
        kind, truth = question.question_type, question.ground_truth
        if question.options is None:
            known = len(numbers[_key(question)]) >= LEAST
            guess = constants[_key(question) if known else (kind, "")]
            points[kind].append(
                float(relative_accuracy(np.array([guess]), np.array([float(truth)]))[0, 0])
            )
        else:
            points[kind].append(float((guesser.guess(question) or "A") == truth))
    return {kind: (float(np.mean(got)), len(got)) for kind, got in sorted(points.items())}


def _key(question: Question) -> tuple[str, str]:
    return question.question_type, " ".join(sorted(question.facts.get("categories", ())))


def _constant(values: list[float]) -> float:
    truth = np.array(values)
    guesses = np.unique(np.quantile(truth, np.linspace(0, 1, 64)))
    return float(guesses[relative_accuracy(guesses, truth).mean(1).argmax()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--homes", type=int, default=600)
    parser.add_argument("--learn", action="store_true")
    parser.add_argument("--out", type=Path, default=record.RESULTS / "blind_reader.jsonl")
    options = parser.parse_args()
    if options.learn:
        write_tables()
    walks = observations(TEST_FROM, options.homes)
    half = len(walks) // 2
    lines = []
    for name, ask in (("as they come", generate), ("fair", generate_fair)):
        asked = [
            ask(seen, np.random.default_rng((seed, 12)), QUESTION_LIMITS) for seed, seen in walks
        ]
        taught, tested = ([q for qs in part for q in qs] for part in (asked[:half], asked[half:]))
        for kind, (score, number) in scores(taught, tested).items():
            one = {"what": "blind reader", "questions": name, "kind": kind}
            lines.append({**one, "blind": round(score, 4), "number": number})
    about = {"homes": options.homes} | record.machine()
    record.append(options.out, [{**line, **about} for line in lines])
    for line in lines:
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
