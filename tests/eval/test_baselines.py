"""Blind baselines: the optimum against brute force, and real questions when they are here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from spatial_ttt.cli.evaluate import register
from spatial_ttt.eval.baselines import baseline_rows, best_constant
from spatial_ttt.eval.benchmarks.vsi_bench import read_questions
from spatial_ttt.eval.metrics import mean_relative_accuracy

REAL = Path(__file__).parents[2] / "../shared/real/vsi_bench_arkitscenes.jsonl"


def write_questions(folder: Path, rows: list[dict[str, object]]) -> Path:
    path = folder / "test.jsonl"
    shared = {"dataset": "arkitscenes", "scene_name": "1", "question": "?", "options": None}
    path.write_text("\n".join(json.dumps(shared | row) for row in rows))
    return path


def number(answer: object, question_type: str = "object_counting") -> dict[str, object]:
    return {"question_type": question_type, "ground_truth": str(answer)}


def direction(answer: str, *texts: str, level: str = "easy") -> dict[str, object]:
    options = [f"{chr(65 + index)}. {text}" for index, text in enumerate(texts)]
    kind = f"object_rel_direction_{level}"
    return {"question_type": kind, "ground_truth": answer, "options": options}


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=12))
def test_best_constant_beats_a_fine_grid(answers: list[int]):
    values, counts = np.unique(np.array(answers) / 10, return_counts=True)
    constant, score = best_constant(values, counts.astype(float))
    achieved = float(np.average(mean_relative_accuracy(constant, values), weights=counts))
    assert achieved == pytest.approx(score)
    grid = np.linspace(0.01, 45, 20_001)
    on_grid = mean_relative_accuracy(grid[:, None], values[None, :]) @ counts / counts.sum()
    assert score >= on_grid.max() - 1e-12


def test_counts_by_hand(tmp_path: Path):
    path = write_questions(tmp_path, [number(2), number(2), number(3), number(4)])
    rows = baseline_rows(read_questions(path))
    assert rows["frequency"]["object_counting"].answer == "2"
    assert rows["frequency"]["object_counting"].score == pytest.approx(100 * (2 + 0.4 + 0.1) / 4)
    # 2.1 keeps both twos (error .05) and raises the three from error .333 to .3
    assert rows["best_constant"]["object_counting"].score >= 100 * (2 + 0.5 + 0.1) / 4
    assert rows["most_frequent"]["object_counting"].answer == "2"
    assert rows["random"]["object_counting"].n == 4


def test_directions_go_by_text_and_are_merged(tmp_path: Path):
    questions = [
        direction("A", "left", "right"),
        direction("B", "right", "left"),  # left again, under another letter
        direction("A", "right", "left"),
        direction("C", "back", "right", "left", level="medium"),
        direction("A", "back-left", "front-right", "front-left", "back-right", level="hard"),
    ]
    rows = baseline_rows(read_questions(write_questions(tmp_path, questions)))
    merged = rows["frequency"]["object_rel_direction"]
    assert merged.n == 5
    assert merged.score == pytest.approx((100 * 2 / 3 + 100 + 100) / 3)
    assert merged.answer.startswith("easy: left")
    chance = rows["random"]["object_rel_direction"].score
    assert chance == pytest.approx((50 + 100 / 3 + 25) / 3)
    assert "object_rel_direction_easy" not in rows["frequency"]


def test_differing_options_go_by_letter(tmp_path: Path):
    shared = {"question_type": "object_rel_distance"}
    questions = [
        shared | {"options": ["A. bed", "B. sofa"], "ground_truth": "B"},
        shared | {"options": ["A. tv", "B. bed"], "ground_truth": "B"},
        shared | {"options": ["A. bed", "B. tv"], "ground_truth": "A"},
    ]
    rows = baseline_rows(read_questions(write_questions(tmp_path, questions)))
    cell = rows["frequency"]["object_rel_distance"]
    assert (cell.answer, cell.score) == ("B", pytest.approx(200 / 3))


@pytest.mark.skipif(not REAL.exists(), reason="the real questions are not here")
def test_real_questions_through_the_command():
    app = typer.Typer()
    register(app)
    app.callback()(lambda: None)
    result = CliRunner().invoke(app, ["eval", "baseline", str(REAL), "--json"])
    assert result.exit_code == 0
    rows = json.loads(result.stdout)
    assert sum(cell["n"] for cell in rows["frequency"].values()) == 1601
    random_row = {key: cell["score"] for key, cell in rows["random"].items()}
    assert random_row["object_rel_distance"] == 25.0
    assert random_row["object_rel_direction"] == pytest.approx(36.1, abs=0.05)
    frequency = {key: cell["score"] for key, cell in rows["frequency"].items()}
    assert frequency["object_counting"] == pytest.approx(64.9, abs=0.05)  # always "2"
    assert frequency["object_abs_distance"] == pytest.approx(31.0, abs=0.05)
    assert frequency["object_rel_direction"] == pytest.approx(49.6, abs=0.05)
    for key, cell in rows["best_constant"].items():
        assert cell["score"] >= frequency[key] - 1e-9
    table = CliRunner().invoke(app, ["eval", "baseline", str(REAL)])
    assert "62.1" in table.stdout  # the published row stands beside ours
