"""Check our rules against a benchmark: answer its questions from its annotations, compare, count.

    python -m spatial_ttt.scenes.verify --annotations META.json --questions QA.jsonl [--json]

A question is computable if its scene is annotated, every category it names has boxes, and those its
rule needs to be unique are. Exits 1 if the agreement of a gated type misses its goal, 2 on misuse.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes import rules
from spatial_ttt.scenes.fields import load_json, mapping, required, text
from spatial_ttt.scenes.questions.question import LETTERS
from spatial_ttt.scenes.questions.templates import Parsed, parse
from spatial_ttt.scenes.readers import category_name, dataset_name, read_scenes, scene_name
from spatial_ttt.scenes.scene import Scene, SceneObject

GOALS = {
    "room_size_estimation": 0.995,
    "object_size_estimation": 0.995,
    "object_rel_distance": 0.995,
    "object_rel_direction_easy": 0.995,
    "object_rel_direction_medium": 0.995,
    "object_rel_direction_hard": 0.995,
    "object_counting": 0.99,
    "object_abs_distance": 0.98,
}
"""Least share of computable questions whose answer must agree."""

TOLERANCES = {"object_abs_distance": 0.1}
"""Largest difference of two numbers that agree; other types: the same digits."""

MEASURES: dict[str, Callable[[Sequence[SceneObject]], rules.Inventory]] = {
    "sampled": rules.sampled_inventory,
    "closed form": rules.inventory,
    "exact": rules.exact_inventory,
}
"""Ways to measure distances. The first decides; the others are reported for the record."""

_CLOSE = 1e-6  # decimals read from text


@dataclass(frozen=True, slots=True)
class BenchmarkQuestion:
    """One question of a benchmark file."""

    dataset: str | None
    scene: str
    question_type: str | None
    question: str
    options: tuple[str, ...]  # texts without letters; empty for numbers
    ground_truth: str


@dataclass(slots=True)
class Tally:
    """What became of the questions of one type."""

    asked: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    computed: int = 0
    agreed: int = 0
    same_digits: int = 0
    misses: list[str] = field(default_factory=list)

    @property
    def agreement(self) -> float | None:
        return self.agreed / self.computed if self.computed else None


# --- Reading -------------------------------------------------------------------------------------


def read_questions(path: str | Path) -> list[BenchmarkQuestion]:
    """The questions of a JSON or JSON Lines file."""
    content = load_json(path)
    if isinstance(content, dict):
        nested = [value for value in content.values() if isinstance(value, list)]
        content = nested[0] if len(nested) == 1 else [content]
    return [_question(record, f"{path}, question {n}") for n, record in enumerate(content, 1)]


def _question(value: Any, where: str) -> BenchmarkQuestion:
    record = mapping(value, where)
    scene = next(
        (record[key] for key in ("scene_name", "scene_id", "scene", "video") if record.get(key)),
        None,
    )
    if scene is None:
        raise SceneError(f"{where} names no scene; it has {sorted(record)}")
    dataset, kind = record.get("dataset"), record.get("question_type")
    answer = next((record[key] for key in ("ground_truth", "answer") if key in record), None)
    if answer is None:
        raise SceneError(f"{where} has no ground_truth; it has {sorted(record)}")
    return BenchmarkQuestion(
        dataset=dataset_name(dataset) if isinstance(dataset, str) else None,
        scene=scene_name(str(scene)),
        question_type=kind if isinstance(kind, str) else None,
        question=text(required(record, "question", where), f"{where}: question"),
        options=_options(record.get("options")),
        ground_truth=str(answer).strip(),
    )


def _options(raw: Any) -> tuple[str, ...]:
    """Option texts without letters, from "A. chair", "(A) chair", {"A": "chair"} or "chair"."""
    if isinstance(raw, dict):
        raw = [raw[key] for key in sorted(raw)]
    if not isinstance(raw, list | tuple):
        return ()
    letter = re.compile(r"^\(?([A-H])[.):]\s*")
    texts = [str(item).strip() for item in raw]
    has_letters = all(letter.match(item) for item in texts)
    return tuple(letter.sub("", item) if has_letters else item for item in texts)


class SceneIndex:
    """Scenes by dataset and name; a name alone will do while it is unique."""

    def __init__(self, scenes: Iterable[Scene]) -> None:
        self._by_name: dict[str, list[Scene]] = defaultdict(list)
        for scene in scenes:
            self._by_name[scene.scene_id.lower()].append(scene)

    def find(self, dataset: str | None, name: str) -> Scene | None:
        """The scene of that name: of the dataset if several datasets use it."""
        found = self._by_name.get(name.lower(), [])
        if len(found) > 1:
            found = [scene for scene in found if scene.source == dataset]
        return found[0] if len(found) == 1 else None


# --- Answering -----------------------------------------------------------------------------------


def match_category(name: str, known: Iterable[str]) -> str | None:
    """The known category a question means: the same words, or the same in singular or plural."""
    wanted, names = category_name(name), set(known)
    variants = [wanted, wanted + "s", wanted.removesuffix("s"), wanted.removesuffix("es")]
    return next((variant for variant in variants if variant in names), None)


def answer(parsed: Parsed, scene: Scene, stock: rules.Inventory) -> tuple[str, str]:
    """The answer by our rules and "", or "" and the reason why it cannot be computed."""
    kind = parsed.question_type
    if kind == "room_size_estimation":
        if scene.room_size is None:
            return "", "room size not annotated"
        return rules.room_size_text(scene.room_size), ""
    known: Iterable[str] = scene.object_counts if kind == "object_counting" else stock.members
    names = [match_category(name, known) for name in parsed.names]
    if None in names:
        return "", "category not annotated"
    found = [name for name in names if name is not None]
    if kind == "object_counting":
        return str(scene.object_counts[found[0]]), ""
    unique = found
    if kind == "object_rel_distance":
        unique = [] if parsed.multiple else found[-1:]
    if any(len(stock.members[name]) != 1 for name in unique):
        return "", "category not unique"
    return _measured_answer(kind, found, stock), ""


def _measured_answer(kind: str, names: list[str], stock: rules.Inventory) -> str:
    if kind == "object_size_estimation":
        return rules.longest_side_text(stock.boxes.size[stock.members[names[0]][0]])
    if kind == "object_abs_distance":
        return rules.distance_text(rules.category_distance(stock, names[0], names[1]))
    if kind == "object_rel_distance":
        return rules.nearest(stock, names[:-1], names[-1])
    return rules.relative_direction(stock, kind, names[0], names[1], names[2])


def expected_text(question: BenchmarkQuestion) -> str:
    """The benchmark's answer in words: the text of its option, or the number."""
    letter = re.fullmatch(r"\(?([A-H])[.):]?", question.ground_truth)
    if letter and question.options and LETTERS.index(letter[1]) < len(question.options):
        return question.options[LETTERS.index(letter[1])]
    return re.sub(r"^\(?[A-H][.):]\s+", "", question.ground_truth)


def compare(kind: str, ours: str, theirs: str) -> tuple[bool, bool]:
    """Whether two answers agree, and whether they agree to the last digit."""
    try:
        difference = abs(float(ours) - float(theirs))
    except ValueError:
        same = match_category(ours, [category_name(theirs)]) is not None
        return same, same
    return difference <= TOLERANCES.get(kind, 0.0) + _CLOSE, difference <= _CLOSE


# --- Counting up ---------------------------------------------------------------------------------


def verify(
    scenes: Iterable[Scene], questions: Iterable[BenchmarkQuestion], measure: str = "sampled"
) -> dict[str, Tally]:
    """Tallies by question type, in the order of `GOALS`, then the others met."""
    index = SceneIndex(scenes)
    stocks: dict[int, rules.Inventory] = {}
    tallies: dict[str, Tally] = {kind: Tally() for kind in GOALS}
    for question in questions:
        parsed = parse(question.question, question.question_type)
        kind = parsed.question_type if parsed else question.question_type or "unknown"
        tally = tallies.setdefault(kind, Tally())
        tally.asked += 1
        scene = index.find(question.dataset, question.scene)
        if parsed is None or scene is None:
            tally.skipped["needs the video" if scene else "scene not annotated"] += 1
            continue
        if id(scene) not in stocks:
            stocks[id(scene)] = MEASURES[measure](scene.objects)
        ours, reason = answer(parsed, scene, stocks[id(scene)])
        if reason:
            tally.skipped[reason] += 1
            continue
        _count(tally, kind, question, ours)
    return {kind: tally for kind, tally in tallies.items() if tally.asked}


def _count(tally: Tally, kind: str, question: BenchmarkQuestion, ours: str) -> None:
    theirs = expected_text(question)
    agrees, same = compare(kind, ours, theirs)
    tally.computed += 1
    tally.agreed += agrees
    tally.same_digits += same
    if not agrees:
        first_line = question.question.splitlines()[0]
        tally.misses.append(f"{question.scene}: {first_line} ours {ours}, theirs {theirs}")


def missed(kind: str, tally: Tally) -> bool:
    """Whether a gated type misses its goal; one that was asked but never computable does too."""
    return kind in GOALS and (tally.agreement is None or tally.agreement < GOALS[kind])


def report(tallies: dict[str, Tally], other_measures: dict[str, dict[str, Tally]]) -> str:
    """The table the command prints."""
    lines = [f"{'question type':32}{'asked':>7}{'computed':>10}{'agree':>9}{'same':>9}{'goal':>8}"]
    for kind, tally in tallies.items():
        goal = f"{GOALS[kind]:.1%}" if kind in GOALS else "-"
        shares = [
            "-" if not tally.computed else f"{count / tally.computed:.2%}"
            for count in (tally.agreed, tally.same_digits)
        ]
        mark = "  MISSED" if missed(kind, tally) else ""
        lines.append(
            f"{kind:32}{tally.asked:7}{tally.computed:10}{shares[0]:>9}{shares[1]:>9}{goal:>8}{mark}"
        )
        lines += [f"    not computable: {n} {why}" for why, n in sorted(tally.skipped.items())]
        lines += [f"    differs: {miss}" for miss in tally.misses[:5]]
    for name, others in other_measures.items():
        for kind in ("object_abs_distance", "object_rel_distance"):
            if kind in others and others[kind].computed:
                label = f"{kind}, {name}"
                agreement = others[kind].agreement or 0.0
                lines.append(f"for the record: {label:46} {agreement:.2%}")
    return "\n".join(lines)


def _as_json(tallies: dict[str, Tally]) -> dict[str, Any]:
    return {
        kind: {
            "asked": tally.asked,
            "computed": tally.computed,
            "agreed": tally.agreed,
            "agreement": tally.agreement,
            "same_digits": tally.same_digits,
            "goal": GOALS.get(kind),
            "missed": missed(kind, tally),
            "not_computable": dict(sorted(tally.skipped.items())),
            "misses": tally.misses,
        }
        for kind, tally in tallies.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m spatial_ttt.scenes.verify", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--annotations", action="append", required=True, help="meta-info JSON; may be repeated"
    )
    parser.add_argument(
        "--questions", action="append", required=True, help="benchmark questions; may be repeated"
    )
    parser.add_argument("--json", action="store_true", help="print the tallies as JSON")
    options = parser.parse_args(arguments)
    try:
        scenes = [scene for path in options.annotations for scene in read_scenes(path)]
        questions = [question for path in options.questions for question in read_questions(path)]
    except SceneError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    run = partial(verify, scenes, questions)
    tallies = run()
    others = {name: run(name) for name in list(MEASURES)[1:]}
    failed = any(missed(kind, tally) for kind, tally in tallies.items())
    if options.json:
        record = {"ok": not failed, "types": _as_json(tallies)}
        record["for_the_record"] = {name: _as_json(tally) for name, tally in others.items()}
        sys.stdout.write(json.dumps(record, indent=1) + "\n")
    else:
        sys.stdout.write(report(tallies, others) + "\n")
    if not any(tally.computed for tally in tallies.values()):
        sys.stderr.write("error: no question could be computed from these annotations\n")
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
