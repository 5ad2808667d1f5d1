"""Benchmarks made of real mp4 files, small enough for a test."""

from __future__ import annotations

import json
from pathlib import Path

from spatial_ttt.video import write_mp4
from tests.eval.toy import place_pictures

FPS = 4.0
PLACES = {
    "a": [0, 0, 1, 1, 2, 2, 3, 3],
    "b": [5, 5, 5, 5, 6, 6, 6, 6],
    "c": [7, 1, 7, 1, 2, 4, 2, 4],
}
"""Scene -> place of each frame; distinct places: 4, 2 and 4."""


def write_vsi_bench(folder: Path, scenes: dict[str, list[int]] | None = None) -> Path:
    """A VSI-Bench folder: videos under arkitscenes/ and test.jsonl with all ten types per scene."""
    (folder / "arkitscenes").mkdir(parents=True)
    rows = []
    for scene, places in (scenes or PLACES).items():
        write_mp4(folder / "arkitscenes" / f"{scene}.mp4", place_pictures(places), fps=FPS)
        for question_type in (
            "object_counting",
            "object_abs_distance",
            "object_size_estimation",
            "room_size_estimation",
        ):
            rows.append(_row(scene, question_type, str(len(set(places)))))
        for question_type in (
            "object_rel_distance",
            "object_rel_direction_easy",
            "object_rel_direction_medium",
            "object_rel_direction_hard",
            "route_planning",
            "obj_appearance_order",
        ):
            rows.append(_row(scene, question_type, "B", ["A. x", "B. y", "C. z", "D. w"]))
    for index, row in enumerate(rows):
        row["id"] = index
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def _row(scene: str, kind: str, answer: str, options: list[str] | None = None) -> dict[str, object]:
    return {
        "dataset": "arkitscenes",
        "scene_name": scene,
        "question_type": kind,
        "question": f"What of {kind}?",
        "options": options,
        "ground_truth": answer,
    }


def write_vsc(folder: Path) -> Path:
    """VSC with one plain and one streaming question about a stream of 3 s."""
    (folder / "10mins").mkdir(parents=True)
    write_mp4(folder / "10mins" / "0.mp4", place_pictures([0, 1, 1, 2]), fps=1.0)
    shared = {"video_path": "10mins/0.mp4", "question": "How many different places are there?"}
    rows = [
        shared | {"split": "10mins", "answer": 3.0, "query_times": None, "answers": None},
        shared
        | {"split": "10mins_streaming", "query_times": [0.5, 2.0, 3.0], "answers": [1, 2, 3]},
    ]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
