"""A picture even of a run that has said nothing yet (whole runs: test_logs.py, test_trainer.py)."""

from __future__ import annotations

from spatial_ttt.train.training_curves import draw


def test_nothing_yet(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    draw(tmp_path / "metrics.jsonl", tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
