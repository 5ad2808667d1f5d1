"""Frames, sessions and checkpoints of the small model, for the tests of everything above the model."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from spatial_ttt.generate import Decoding
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.processor import Processor
from spatial_ttt.session import StreamingSession
from spatial_ttt.testing.small import small_model, small_processor
from spatial_ttt.video import Frame

REAL = Path(__file__).parents[1] / "../shared/real"
SHORT = Decoding(max_new_tokens=8)


def frames(
    count: int, *, start: int = 0, size: tuple[int, int] = (32, 48), fps: float = 2.0
) -> list[Frame]:
    """Frame n of a stream of noise, the same on every call."""
    return [
        Frame(np.random.default_rng(n).integers(0, 256, (*size, 3), dtype=np.uint8), n / fps)
        for n in range(start, start + count)
    ]


@cache
def model() -> SpatialTTTForConditionalGeneration:
    """A slot has about 22 tokens, so a chunk holds less than two slots."""
    return small_model(chunk_size=40, window_size=40)


@cache
def processor() -> Processor:
    return small_processor()


def session(**options) -> StreamingSession:
    return StreamingSession(model(), processor(), **options)


def answer(
    watched: StreamingSession, question: str = "How many?", decoding: Decoding = SHORT
) -> str:
    return "".join(watched.ask(question, decoding))


def write_checkpoint(folder: Path, **ttt) -> Path:
    """A folder as `save_pretrained` and the processor write it."""
    small_model(**({"chunk_size": 40, "window_size": 40} | ttt)).save_pretrained(str(folder))
    processor().save_pretrained(folder)
    return folder
