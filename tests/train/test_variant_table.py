"""The table of ablations: points over blind, means over seeds and their spread."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from spatial_ttt.errors import ConfigError
from spatial_ttt.train.variant_table import draw, gain, read_rows, show, spread, table


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
    assert lines[0] == "| variant | seeds | steps | clips made | look: full - blind |"
    assert lines[2] == "| whole | 2 | 100 to 110 | 1,200 | +25.0 ± 7.1 |"
    assert lines[3] == "| no_muon | 1 | 90 | 1,200 | +5.0 |"
    assert lines[-1] == "| count | 50.0 ± 7.1 | 30.0 |"


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
    told = [row.split(" ")[1] for row in capsys.readouterr().out.splitlines()[2:5]]
    assert told == ["whole", "full", "other"]
    assert (tmp_path / "new" / "r.png").read_bytes()[:4] == b"\x89PNG"
    draw(read_rows(path), tmp_path / "again.png")


def test_without_results_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run the variants first"):
        read_rows(tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match="is empty"):
        read_rows(write(tmp_path / "empty.jsonl"))
