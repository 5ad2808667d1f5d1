"""The picture of a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spatial_ttt.train.curves import draw

STEPS = [
    {"step": n, "stage": "look", "blind": n == 2, "loss": 5.0 / n, "dense_pose": 1.0 / n}
    for n in range(1, 5)
]
PROBES = [
    {"step": 2, "probe": "look", "scores": {"full": {"route_planning": [0.2, 0.3, 5]}}},
    {"step": 3, "probe": "room", "scores": {"full": {"object_counting": [0.5, 0.4, 9]}}},
    {
        "step": 4,
        "probe": "room",
        "scores": {"full": {"object_counting": [0.6, 0.4, 9], "route_planning": [0.2, 0.3, 5]}},
    },
]


def picture(folder: Path, records: list[dict]) -> np.ndarray:
    metrics, target = folder / "metrics.jsonl", folder / "curves.png"
    metrics.write_text("".join(json.dumps(record) + "\n" for record in records))
    draw(metrics, target)
    return np.asarray(Image.open(target).convert("RGB"))


@pytest.mark.filterwarnings("error")
def test_it_shows_losses_left_and_scores_right(tmp_path: Path) -> None:
    empty = picture(tmp_path, [])
    steps = picture(tmp_path, STEPS)
    both = picture(tmp_path, [*STEPS, *PROBES])
    third = empty.shape[1] // 3
    assert empty.shape == steps.shape == both.shape
    assert (steps != empty)[:, :third].any() and (steps != empty)[:, third : 2 * third].any()
    assert (both != steps)[:, 2 * third :].any()


def test_streams_have_a_line_of_their_own(tmp_path: Path) -> None:
    streams = [{**step, "dense_counts": 1.0} for step in STEPS]
    for step in streams:
        del step["dense_pose"]
    with_pose = [{**step, "dense_pose": 1.0} for step in streams]
    alone, mixed = picture(tmp_path, streams), picture(tmp_path, with_pose)
    assert (alone != mixed)[:, : alone.shape[1] // 3].any()  # the label says which they are


def test_blind_steps_are_left_out(tmp_path: Path) -> None:
    seeing = [step for step in STEPS if not step["blind"]]
    assert (picture(tmp_path, STEPS) == picture(tmp_path, seeing)).all()
