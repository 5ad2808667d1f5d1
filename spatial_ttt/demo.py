"""The demonstration: a held-out walkthrough through the shipped model, every answer beside its truth."""

from __future__ import annotations

import base64
import html
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from spatial_ttt.errors import DataError
from spatial_ttt.eval.benchmarks.item import BenchmarkItem
from spatial_ttt.eval.benchmarks.procedural import load_procedural
from spatial_ttt.eval.metrics import score_reply
from spatial_ttt.eval.profiles import build_prompt, load_profile
from spatial_ttt.files import atomic_path
from spatial_ttt.generate import Decoding
from spatial_ttt.loading import SHIPPED, LoadedModel
from spatial_ttt.session import StreamingSession
from spatial_ttt.stream_state import SessionStats
from spatial_ttt.video import Frame, open_source

DEMO = SHIPPED / "demo"
"""`walk.mp4`, `examples.jsonl` (questions and truth) and `plan.svg`."""

PAGE = Path(__file__).parent / "templates" / "demo.html"

PICTURES = 12
"""Frames shown on the page."""


class Answered(NamedTuple):
    """One question, the model's reply, and what it earned."""

    item: BenchmarkItem
    reply: str
    score: float  # 0..1
    seconds: float


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration showed."""

    answers: Sequence[Answered]
    stats: SessionStats
    watch_seconds: float
    frames: Sequence[Frame]
    model_name: str
    is_trained: bool

    @property
    def seconds_per_frame(self) -> float:
        """From file to memory, decoding included."""
        return self.watch_seconds / max(1, self.stats.num_frames)

    def summary(self) -> str:
        """One line of figures."""
        mean = 100 * sum(a.score for a in self.answers) / max(1, len(self.answers))
        return (
            f"{len(self.answers)} questions, mean score {mean:.0f}; {self.stats.num_frames} frames at "
            f"{1e3 * self.seconds_per_frame:.1f} ms each; state {self.stats.state_bytes:,} bytes"
        )


def run_demo(
    loaded: LoadedModel, folder: Path = DEMO, *, on_answer: Callable[[Answered], None] | None = None
) -> DemoResult:
    """Watch the walkthrough slot by slot, then ask every question on a fork."""
    if not (folder / "examples.jsonl").is_file():
        raise DataError(f"{folder} holds no demonstration; run scripts/make_demo to make one")
    items = [item for item in load_procedural(folder).items if item.kind is not None]
    profile = load_profile("paper")
    with StreamingSession(loaded.model, loaded.processor, slots_per_piece=1) as session:
        started = time.perf_counter()
        with open_source(str(folder / "walk.mp4"), fps=2.0) as source:
            frames = list(source)
        session.observe(frames)
        watched = time.perf_counter() - started
        answers = []
        for item in items:
            begun = time.perf_counter()
            decoding = Decoding(max_new_tokens=item.max_new_tokens)
            reply = "".join(session.ask(build_prompt(item, profile), decoding)).strip()
            score = score_reply(reply, item.answer, item.kind, item.options).official
            answers.append(Answered(item, reply, score, time.perf_counter() - begun))
            if on_answer:
                on_answer(answers[-1])
        return DemoResult(
            answers, session.stats(), watched, _spread(frames), loaded.name, loaded.is_trained
        )


def _spread(frames: list[Frame]) -> list[Frame]:
    index = np.linspace(0, len(frames) - 1, min(PICTURES, len(frames))).round().astype(int)
    return [frames[i] for i in index]


def write_page(result: DemoResult, path: Path, folder: Path = DEMO) -> None:
    """One self-contained HTML page: frames, plan, questions, answers, truth."""
    plan = (folder / "plan.svg").read_text() if (folder / "plan.svg").is_file() else ""
    pictures = "".join(
        f'<figure><img alt="" src="data:image/jpeg;base64,{_jpeg(frame)}">'
        f"<figcaption>{frame.time:.1f} s</figcaption></figure>"
        for frame in result.frames
    )
    rows = "".join(_row(answer) for answer in result.answers)
    stats = result.stats
    note = "" if result.is_trained else "<p><b>Random weights: no trained model ships yet.</b></p>"
    page = PAGE.read_text().format(
        note=note,
        model=html.escape(result.model_name),
        frames=stats.num_frames,
        seconds=stats.seconds_seen,
        per_frame=1e3 * result.seconds_per_frame,
        state=stats.state_bytes,
        ttt=stats.ttt_bytes,
        pictures=pictures,
        plan=plan,
        rows=rows,
        mean=100 * sum(a.score for a in result.answers) / max(1, len(result.answers)),
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page)


def _jpeg(frame: Frame) -> str:
    buffer = io.BytesIO()
    Image.fromarray(frame.pixels).save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()


def _row(answer: Answered) -> str:
    item = answer.item
    options = "<br>".join(html.escape(option) for option in item.options)
    color = f"hsl({120 * answer.score:.0f} 60% 85%)"
    return (
        f"<tr><td>{html.escape(item.question_type)}</td>"
        f"<td>{html.escape(item.question)}<br><small>{options}</small></td>"
        f'<td style="background:{color};color:#111">{html.escape(answer.reply)}</td><td>{html.escape(item.answer)}</td>'
        f"<td>{100 * answer.score:.0f}</td></tr>"
    )
