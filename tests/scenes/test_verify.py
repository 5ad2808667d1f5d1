"""The verify command: on the real benchmark, and on small files with every liberty of form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes import verify
from spatial_ttt.scenes.readers import scenes_from_meta

REAL = Path(__file__).parents[2] / "../shared/real"
META, QA = REAL / "vsi_bench_arkitscenes_meta.json", REAL / "vsi_bench_arkitscenes.jsonl"


def box(x: float, y: float, side: float = 0.5) -> dict[str, Any]:
    return {
        "centroid": [x, y, 0],
        "axesLengths": [side] * 3,
        "normalizedAxes": [1, 0, 0, 0, 1, 0, 0, 0, 1],
    }


RECORD = {
    "room_size": 20.04,
    "object_counts": {"chair": 3, "bed": 1, "tv": 1, "sofa": 1, "lamp": 1, "trash can": 1},
    "object_bbox": {
        "chair": [box(1, 1), box(4, 4), box(9, 9)],
        "bed": [box(0, 0)],
        "tv": [box(0, 3)],
        "sofa": [box(3, 3)],
        "lamp": [box(-4, 0, 1.204)],
        "Trash_Can": [box(-2, -6)],
    },
}
HARD = (
    "If I am standing by the bed and facing the tv, is the sofa to my front-left, front-right, "
    "back-left, or back-right?\nThe directions refer to the quadrants of a Cartesian plane "
    "(if I am standing at the origin and facing along the positive y-axis)."
)
NEAREST = (
    "Measuring from the closest point of each object, which of these objects (chair, tv, sofa, "
    "lamp) is the closest to the bed?"
)
SIZE = (
    "What is the length of the longest dimension (length, width, or height) of the lamp, "
    "measured in centimeters?"
)
DISTANCE = (
    "Measuring from the closest point of each object, what is the distance between the bed and "
    "the tv (in meters)?"
)


def asked(question: str, truth: Any, options: Any = None, **more: Any) -> dict[str, Any]:
    record = {"dataset": "scannet", "scene_name": "scene0001_00", "question": question}
    return {**record, "options": options, "ground_truth": truth, **more}


GOOD = [
    asked("How many chair(s) are in this room?", 3, question_type="object_counting"),
    asked("How many chairs are there in the room?", "3"),
    asked("What is the size of this room (in square meters)? \nIf multiple rooms ...", "20.0"),
    asked(SIZE, "120"),
    asked(DISTANCE, "2.5"),
    asked(DISTANCE.replace("bed", "trash can"), 8.7),
    asked(NEAREST, "A", ["A. chair", "B. tv", "C. sofa", "D. lamp"]),
    asked(NEAREST, "A. chair", ["A. chair", "B. tv", "C. sofa", "D. lamp"]),
    asked(NEAREST, "chair", ["(A) lamp", "(B) chair", "(C) sofa", "(D) tv"]),
    asked(NEAREST, "B", {"B": "Chair", "A": "tv", "C": "sofa", "D": "lamp"}),
    asked(NEAREST, "C", ["sofa", "tv", "chair", "lamp"]),
    asked(HARD, "D", ["A. back-left", "B. back-right", "C. front-left", "D. front-right"]),
    asked(HARD.replace("sofa", "trash can"), "back-left"),
]


def run(tmp_path: Path, meta: Any, questions: list[Any], *more: str) -> tuple[int, str]:
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    (tmp_path / "qa.jsonl").write_text("\n".join(json.dumps(q) for q in questions))
    command = [sys.executable, "-m", "spatial_ttt.scenes.verify"]
    command += ["--annotations", str(tmp_path / "meta.json")]
    command += ["--questions", str(tmp_path / "qa.jsonl"), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_every_form_of_a_right_question_agrees(tmp_path: Path) -> None:
    code, out = run(tmp_path, {"scannet": {"scene0001_00": RECORD}}, GOOD, "--json")
    record = json.loads(out)
    assert code == 0 and record["ok"], out
    computed = {kind: tally["computed"] for kind, tally in record["types"].items()}
    assert computed == {
        "room_size_estimation": 1,
        "object_size_estimation": 1,
        "object_rel_distance": 5,
        "object_rel_direction_hard": 2,
        "object_counting": 2,
        "object_abs_distance": 2,
    }
    assert all(tally["agreement"] == 1.0 for tally in record["types"].values())


@pytest.mark.parametrize("wrong", range(len(GOOD)))
def test_one_wrong_answer_of_any_form_is_a_miss(tmp_path: Path, wrong: int) -> None:
    questions = [dict(question) for question in GOOD]
    truth = questions[wrong]["ground_truth"]
    letters = {"A": "D", "B": "D", "C": "D", "D": "A", "chair": "tv", "A. chair": "B. tv"}
    letters["back-left"] = "front-right"
    questions[wrong]["ground_truth"] = letters.get(truth) or str(float(truth) + 2)
    scenes = scenes_from_meta({"scene0001_00": RECORD})
    path = tmp_path / "qa.json"
    path.write_text(json.dumps(questions))
    tallies = verify.verify(scenes, verify.read_questions(path))
    missed = [kind for kind, tally in tallies.items() if verify.missed(kind, tally)]
    assert len(missed) == 1
    assert len(tallies[missed[0]].misses) == 1


def test_a_miss_exits_1_and_is_shown(tmp_path: Path) -> None:
    wrong = [asked("How many chair(s) are in this room?", "9")]
    code, out = run(tmp_path, {"scene0001_00": RECORD}, wrong)
    assert code == 1
    assert "MISSED" in out and "ours 3, theirs 9" in out


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        (asked("How many piano(s) are in this room?", 2), "category not annotated"),
        (asked(SIZE.replace("lamp", "chair"), 50), "category not unique"),
        (asked(DISTANCE.replace("tv", "chair"), 1), "category not unique"),
        (asked(HARD.replace("tv", "chair"), "A"), "category not unique"),
        (asked(NEAREST.replace("the bed", "the chair"), "A"), "category not unique"),
        (asked(SIZE, 120, scene_name="scene0002_00"), "scene not annotated"),
    ],
)
def test_what_is_not_computable_is_skipped_with_its_reason(
    tmp_path: Path, question: dict[str, Any], reason: str
) -> None:
    code, out = run(tmp_path, {"scene0001_00": RECORD}, [*GOOD, question], "--json")
    types = json.loads(out)["types"]
    reasons = [name for tally in types.values() for name in tally["not_computable"]]
    assert reasons == [reason]
    assert code == 0, "one that cannot be computed is no miss beside others that can"


def test_a_type_that_was_never_computable_is_a_miss(tmp_path: Path) -> None:
    code, _ = run(tmp_path, {"scene0009_00": RECORD}, GOOD)
    assert code == 1


def test_several_instances_are_measured_to_the_closest_if_the_question_says_so() -> None:
    scenes = scenes_from_meta({"scene0001_00": RECORD})
    question = NEAREST.replace("chair, ", "trash can, ").replace("the bed", "the chair")
    note = "\nIf there are multiple instances of an object category, measure to the closest."
    asked_of = verify.BenchmarkQuestion(
        None, "scene0001_00", None, question + note, ("trash can", "tv", "sofa", "lamp"), "sofa"
    )
    assert verify.verify(scenes, [asked_of])["object_rel_distance"].agreement == 1.0


def test_scenes_of_the_same_name_are_told_apart_by_dataset() -> None:
    other = {**RECORD, "room_size": 99.0}
    scenes = scenes_from_meta({"scannet": {"x": RECORD}, "scannetpp": {"x": other}})
    index = verify.SceneIndex(scenes)
    found = [index.find(name, "X") for name in ("scannet", "scannetpp", None)]
    assert [scene and scene.room_size for scene in found] == [20.04, 99.0, None]


def test_categories_match_in_singular_and_plural() -> None:
    known = ["trash can", "books", "shoe", "bus"]
    for name, expected in (
        ("Trash_Can", "trash can"), ("trash cans", "trash can"), ("book", "books"),
        ("shoes", "shoe"), ("bus", "bus"), ("buses", "bus"), ("can", None),
    ):  # fmt: skip
        assert verify.match_category(name, known) == expected


def test_files_that_cannot_be_read_exit_2(tmp_path: Path) -> None:
    code, out = run(tmp_path, {"s": {"room_size": "huge"}}, GOOD)
    assert code == 2 and "room_size" in out
    code, out = run(tmp_path, {"s": RECORD}, [{"question": "x", "ground_truth": 1}])
    assert code == 2 and "names no scene" in out
    code, out = run(tmp_path, {"s": RECORD}, [{"question": "x", "scene_name": "s"}])
    assert code == 2 and "no ground_truth" in out


def test_questions_may_come_as_one_list(tmp_path: Path) -> None:
    path = tmp_path / "qa.json"
    for content in (GOOD, {"questions": GOOD}):
        path.write_text(json.dumps(content))
        assert len(verify.read_questions(path)) == len(GOOD)
    path.write_text(json.dumps([3]))
    with pytest.raises(SceneError, match="question 1"):
        verify.read_questions(path)


@pytest.mark.skipif(not META.exists(), reason="the benchmark's files are not here")
def test_the_real_benchmark_is_re_derived() -> None:
    scenes = verify.read_scenes(META)
    questions = verify.read_questions(QA)
    tallies = verify.verify(scenes, questions)
    for kind, goal in verify.GOALS.items():
        assert tallies[kind].computed == tallies[kind].asked > 90
        assert (tallies[kind].agreement or 0.0) >= goal
    assert tallies["object_abs_distance"].same_digits == tallies["object_abs_distance"].computed
    closed = verify.verify(scenes, questions, "closed form")["object_abs_distance"]
    assert (closed.agreement or 0.0) >= 0.98, "the measure of our own questions must hold too"


@pytest.mark.skipif(not META.exists(), reason="the benchmark's files are not here")
@pytest.mark.parametrize(
    "damage",
    ["swap axes", "mirror", "scale", "clockwise"],
)
def test_the_real_benchmark_notices_wrong_annotations(damage: str) -> None:
    """What the check is for: it fails if boxes or directions are read the wrong way round."""
    raw = json.loads(META.read_text())
    for scene in raw.values():
        for group in scene["object_bbox"].values():
            for item in group:
                axes, center = item["normalizedAxes"], item["centroid"]
                if damage == "swap axes":
                    item["axesLengths"] = [item["axesLengths"][k] for k in (1, 0, 2)]
                elif damage == "mirror":
                    center[0] = -center[0]
                    axes[0], axes[3] = -axes[0], -axes[3]
                elif damage == "scale":
                    item["axesLengths"] = [length * 1.05 for length in item["axesLengths"]]
                else:
                    center[0], center[1] = center[1], center[0]
    tallies = verify.verify(scenes_from_meta(raw), verify.read_questions(QA))
    assert any(verify.missed(kind, tally) for kind, tally in tallies.items())
