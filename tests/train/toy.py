"""A few real clips with questions, and a recipe that trains on them in seconds on one core."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spatial_ttt.train.run_config import TrainConfig
from spatial_ttt.train.settings import build, overlay
from spatial_ttt.video.writing import write_mp4

HEIGHT, WIDTH = 32, 64
FPS = 2.0
QUESTION = "What is shown here?"
ANSWERS = ("3", "B", "1.5", "chair", "left", "12", "A", "4.0")


def pictures(seed: int, count: int) -> list[np.ndarray]:
    """Blocks of colour that differ by seed and move."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (4, 8, 3), dtype=np.uint8)
    whole = np.kron(blocks, np.ones((8, 8, 1), np.uint8))
    return [np.roll(whole, 4 * n, axis=1) for n in range(count)]


def write_clip(path: Path, seed: int, frames: int) -> Path:
    write_mp4(path, iter(pictures(seed, frames)), fps=FPS)
    return path


def sample(number: int, video: str, answer: str, **more: Any) -> dict[str, Any]:
    return {
        "id": f"toy-{number}",
        "video": video,
        "conversations": [
            {"from": "human", "value": f"<video>\n{QUESTION}"},
            {"from": "gpt", "value": answer},
        ],
        "question_type": "object_counting",
        "ground_truth": answer,
    } | more


def write_data(folder: Path, count: int = 8, frames: Sequence[int] = (4, 6, 8)) -> Path:
    """`count` clips of `frames` frames in turn, a question about each."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for number in range(count):
        name = f"clip-{number}.mp4"
        write_clip(folder / name, number, frames[number % len(frames)])
        records.append(sample(number, name, ANSWERS[number % len(ANSWERS)]))
    target = folder / "examples.jsonl"
    target.write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def recipe(folder: Path, out: Path, **changes: Any) -> TrainConfig:
    """The test model in float32 on the CPU; `changes` are nested keys of the recipe."""
    values: dict[str, Any] = {
        "out": str(out),
        "device": "cpu",
        "precision": "float32",
        "checkpointed_layers": "none",
        "start": {
            "preset": "test",
            "gate_bias": 1.0,
            "ttt": {"chunk_size": 24, "window_size": 24, "newton_schulz_dtype": "float32"},
        },
        "data": {
            "files": [str(folder)],
            "frames": {"most": 8, "size": [HEIGHT, WIDTH]},
            "max_tokens": 400,
            "max_samples": 2,
            "packs_per_step": 2,
            "workers": 1,
        },
        "optim": {"learning_rate": {"base": 1e-3, "ttt": 1e-3}, "warmup_steps": 2},
        "epochs": 100,
        "max_steps": 4,
    }
    return build(TrainConfig, overlay(values, changes), "the toy recipe")
