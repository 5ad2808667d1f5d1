"""The table of ablations: points over blind, means over seeds and their spread."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from spatial_ttt.errors import ConfigError
from spatial_ttt.train.variant_table import (
    differences,
    draw,
    gain,
    grouped,
    read_rows,
    score,
    show,
    spread,
    table,
    told,
)


def line(variant: str, seed: int, full: float, steps: int = 100) -> dict[str, object]:
    scores = {"full": {"count": [full, 0.1, 9]}, "blind": {"count": [0.25, 0.1, 9]}}
    means = {"look": {"full": full, "blind": 0.25}}
    found = {"variant": variant, "seed": seed, "steps": steps, "clips": 1200}
    return found | {"means": means, "scores": {"look": scores}}


def write(path: Path, *lines: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return path


def test_a_table_has_gains_with_their_spread_and_scores_by_type(tmp_path: Path) -> None:
    path = write(
        tmp_path / "r.jsonl",
        line("no_muon", 0, 0.30, 90),
        line("whole", 0, 0.10),  # a run made again: the last line counts
        line("whole", 1, 0.55, 110),
        line("whole", 0, 0.45),
    )
    rows = read_rows(path)
    assert len(rows) == 3 and gain(rows[1], "look") == pytest.approx(20.0)
    lines = table(rows[1:] + rows[:1]).splitlines()
    assert lines[0] == (
        "| variant | seeds | steps | clips made | look: full - blind | look: against whole |"
    )
    assert lines[2] == "| whole | 2 | 100 to 110 | 1,200 | +25.0 ± 7.1 | - |"
    assert lines[3] == "| no_muon | 1 | 90 | 1,200 | +5.0 | -15.0 |"
    assert "| count | 50.0 ± 7.1 | 30.0 |" in lines
    assert lines[-4:-2] == ["| count | -15.0 |", "| mean | -15.0 |"]


def test_differences_are_paired_by_seed_and_signed_beyond_the_pooled_error() -> None:
    rows = [
        *(line("whole", 0, 0.40), line("whole", 1, 0.60), line("whole", 2, 0.50)),
        *(line("worse", 1, 0.50), line("worse", 0, 0.30)),  # ten less with each seed
        *(line("equal", 0, 0.43), line("equal", 1, 0.58)),
        line("once", 2, 0.20),
        line("alone", 7, 0.90),  # no seed to pair with
    ]
    found = differences(rows, "look", "count")
    assert found["worse"] == pytest.approx([-10.0, -10.0])
    assert found["equal"] == pytest.approx([3.0, -2.0])
    assert found["once"] == pytest.approx([-30.0]) and found["alone"] == []
    cells = told(found)  # pooled variance 12.5 / 2, standard error of two seeds 1.77
    assert cells["worse"] == "-10.0 ± 0.0 *" and cells["equal"] == "+0.5 ± 3.5"
    assert cells["once"] == "-30.0" and cells["alone"] == "-"
    assert told({"a": [3.5, 3.5], "b": [-2.5, 2.5]})["a"] == "+3.5 ± 0.0"  # 2 x 1.77 is more
    assert told({"a": [3.6, 3.6], "b": [-2.5, 2.5]})["a"] == "+3.6 ± 0.0 *"


def test_a_difference_is_one_of_gains_not_of_scores() -> None:
    shown, hidden = line("whole", 0, 0.5), line("other", 0, 0.5)
    scores = {"look": {"full": {"count": [0.5, 0.1, 9]}, "blind": {"count": [0.35, 0.1, 9]}}}
    assert differences([shown, hidden | {"scores": scores}], "look", "count") == {
        "other": pytest.approx([-10.0])
    }
    assert score(shown, "look", "count", "blind") == pytest.approx(25.0)


def test_runs_of_different_starts_have_tables_of_their_own_newest_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on = {"arguments": ["--clips", "32", "--resume", "/somewhere/base", "--shrink", "0.02", "0.3"]}
    slow = {"arguments": ["--resume=elsewhere/base", "--attention", "annealed"]}
    path = write(
        tmp_path / "r.jsonl",
        line("whole", 0, 0.35),
        line("worse", 0, 0.30) | {"arguments": ["--clips", "32"]},
        line("whole", 0, 0.60) | slow,
        line("worse", 0, 0.50) | on,
        line("whole", 0, 0.55) | on,
    )
    groups = grouped(read_rows(path), ["whole", "worse"])
    assert {name: [row["variant"] for row in rows] for name, rows in groups.items()} == {
        "on from base": ["whole", "worse"],
        "on from base, attention annealed": ["whole"],
        "from scratch": ["whole", "worse"],
    }
    assert next(iter(groups)) == "on from base" and list(groups)[-1] == "from scratch"
    assert show(path, order=["whole", "worse"]) == 0
    out = capsys.readouterr().out
    assert [row for row in out.splitlines() if row.startswith("## ")] == [
        f"## Runs {name}" for name in groups
    ]
    assert "| worse | 1 | 100 | 1,200 | +25.0 | -5.0 |" in out
    assert "| worse | 1 | 100 | 1,200 | +5.0 | -5.0 |" in out


def test_without_the_baseline_there_is_nothing_to_compare() -> None:
    text = table([line("full", 0, 0.5), line("window", 0, 0.4)])
    assert "| full | 1 | 100 | 1,200 | +25.0 | - |" in text and "minus those" not in text


def test_what_was_not_asked_has_no_figure() -> None:
    row = line("whole", 0, 0.5) | {"means": {"look": {"full": 0.5}}}
    assert math.isnan(gain(row, "look")) and math.isnan(gain(row, "home"))
    assert spread([math.nan]) == "-" and spread([math.nan, 2.0], signed=True) == "+2.0"


def test_a_picture_is_drawn_and_variants_are_told_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(
        tmp_path / "r.jsonl", line("other", 0, 0.5), line("full", 0, 0.6), line("whole", 0, 0.5)
    )
    assert show(path, tmp_path / "new" / "r.png", ["whole", "full"]) == 0
    told = [row.split(" ")[1] for row in capsys.readouterr().out.splitlines()[4:7]]
    assert told == ["whole", "full", "other"]
    assert (tmp_path / "new" / "r.png").read_bytes()[:4] == b"\x89PNG"
    draw(read_rows(path), tmp_path / "again.png")


def test_without_results_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run the variants first"):
        read_rows(tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match="is empty"):
        read_rows(write(tmp_path / "empty.jsonl"))
