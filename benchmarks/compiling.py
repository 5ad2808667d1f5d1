"""What compiling the small model's training step costs, and whether anything is compiled twice.

    TORCHINDUCTOR_CACHE_DIR=FOLDER/i TRITON_CACHE_DIR=FOLDER/t python benchmarks/compiling.py [--out FILE]

Steps of a run in miniature: with and without video, both kinds of homes, fast weights off and on, several windows.
A second process with the same folders shows what kept code is worth. One JSON line: seconds and compiled graphs after
every step, then the median of steps when nothing is new. `--tiny` shows on a CPU that the script runs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import record
import torch
from torch import Tensor

from spatial_ttt.engine import compile_for_training
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.presets import TINY_VOCAB_SIZE, preset
from spatial_ttt.tokenizer import default_texts, token_ids, train_tokenizer
from spatial_ttt.train.annealing import Reach, set_reach
from spatial_ttt.train.branches import Packed, ingest, ingest_blind, read_packed
from spatial_ttt.train.clip_text import blind_prefix, clip_prefix
from spatial_ttt.train.clip_types import ClipSpec
from spatial_ttt.train.initialise import initialise

BRANCH = 28  # tokens of a question


def main() -> None:
    """Measure and note."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=record.RESULTS / "compiling.jsonl")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() and not options.tiny else "cpu")
    tokenizer = train_tokenizer(default_texts(), TINY_VOCAB_SIZE)
    model = make(tokenizer, device, options.tiny)
    if options.compile:
        compile_for_training(model, backend="aot_eager" if options.tiny else "inductor")
    lines: list[dict[str, Any]] = []
    steady: dict[str, float] = {}
    for name, batch, reach, spec in plan(16 if options.tiny else options.clips, options.tiny):
        set_reach(model, reach)
        times = []
        for repeat in range(options.repeats + 1):
            began = time.perf_counter()
            step(model, tokenizer, batch, spec, device, repeat)
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
        graphs = torch._dynamo.utils.counters["stats"].get("unique_graphs", 0)
        lines.append({"step": name, "seconds": round(times[0], 2), "graphs": graphs})
        steady[name] = round(1000 * statistics.median(times[1:]), 1)
        print(lines[-1], f"then {steady[name]} ms", flush=True)
    line = {"what": "compiling", "compiled": options.compile, "clips": options.clips}
    total = round(sum(one["seconds"] for one in lines), 1)
    line |= {"first_steps": lines, "first_seconds": total, "then_ms": steady}
    print(f"first steps {total} s", flush=True)
    record.append(options.out, [record.machine() | line])


def make(tokenizer: Any, device: torch.device, is_tiny: bool) -> SpatialTTTForConditionalGeneration:
    """A fresh small model with open gates."""
    config = preset("test" if is_tiny else "tiny", token_ids=token_ids(tokenizer))
    model = SpatialTTTForConditionalGeneration(config)
    initialise(model, 0, 1.0)
    return model.to(device, torch.float32 if is_tiny else torch.bfloat16).train()


def plan(clips: int, is_tiny: bool) -> Iterator[tuple[str, int, Reach, ClipSpec | None]]:
    """Name, clips, what TTT layers see, and the video (None: blind) of every step, as a run meets them."""
    width, height = (64, 32) if is_tiny else (128, 96)
    look, home = (
        ClipSpec(num_slots=slots, fps=2.0, width=width, height=height) for slots in (14, 32)
    )
    whole, on, shrunk = Reach(768, False), Reach(768, True), Reach(128, True)
    yield "blind", clips, whole, None
    yield "room", clips, whole, look
    yield "room, memory", clips, on, look
    yield "blind, memory", clips, on, None
    yield "home, window 400", clips // 2, Reach(400, True), home
    yield "home", clips // 2, shrunk, home
    yield "home, blind", clips // 2, shrunk, None
    yield "room, window 128", clips, shrunk, look
    yield "quarter of the clips", clips // 4, shrunk, home


def step(
    model: SpatialTTTForConditionalGeneration, tokenizer: Any, batch: int, spec: ClipSpec | None,
    device: torch.device, seed: int,
) -> None:  # fmt: skip
    """Forward and backward passes over random clips and questions, more or fewer tokens each time."""
    generator = torch.Generator().manual_seed(seed)
    if spec is None:
        ingested = ingest_blind(model, blind_prefix(tokenizer), batch, device)
    else:
        shape = (batch, spec.num_frames, spec.height, spec.width, 3)
        frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        ingested = ingest(model, clip_prefix(tokenizer, spec), frames.to(device), spec)
    hidden = read_packed(model, ingested.state, questions(batch, 14 + seed % 3, generator, device))
    loss: Tensor = hidden.float().square().mean() + ingested.hidden.float().square().mean()
    loss.backward()
    model.zero_grad(set_to_none=True)


def questions(batch: int, count: int, generator: torch.Generator, device: torch.device) -> Packed:
    """So many questions of equal length per clip, padded to a multiple of 32 tokens."""
    used = count * BRANCH
    width = -(-used // 32) * 32
    ids = torch.randint(300, 1000, (batch, width), generator=generator).to(device)
    at = torch.arange(width, device=device)
    number = torch.where(at < used, at // BRANCH, -1).expand(batch, -1)
    return Packed(ids, number, (at % BRANCH).expand(batch, -1), BRANCH)


if __name__ == "__main__":
    main()
