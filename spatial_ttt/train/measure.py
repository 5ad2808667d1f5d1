"""What a small model scores on unseen homes, with intervals: homes are made, drawn and asked about on the spot.

    python -m spatial_ttt.train.measure --model spatial_ttt/shipped --homes 200 --out OUT

Every way of asking gets a folder of replies as `spatial-ttt eval` writes them, so `eval report` and `eval
compare` read them. Nothing is written to disk on the way, so thousands of questions take a minute on a GPU.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import re
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from spatial_ttt import __version__
from spatial_ttt.checkpoint import load_model
from spatial_ttt.eval.baselines import baseline_rows, rows_to_json
from spatial_ttt.eval.benchmarks.item import BenchmarkItem, Clip
from spatial_ttt.eval.controls import CONTROLS
from spatial_ttt.eval.predictions import PREDICTIONS, Prediction, PredictionLog, claim_folder
from spatial_ttt.eval.report import write_report
from spatial_ttt.eval.scoring import Summary
from spatial_ttt.eval.variants import variant
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.scenes.homes import SPLITS, home_seed
from spatial_ttt.tokenizer import load_tokenizer
from spatial_ttt.train import tiny_setup as setup
from spatial_ttt.train.clip_text import Prefix, blind_prefix, clip_prefix
from spatial_ttt.train.clip_types import ClipSpec
from spatial_ttt.train.curriculum import plan
from spatial_ttt.train.pool import ClipSource, Order
from spatial_ttt.train.probe import NUMBERS, Reply, answer_ring
from spatial_ttt.train.ring import ClipRing

log = logging.getLogger(__name__)

WAYS = ("none", "blind", "one_frame", "memory_off", "window_only", "full_attention")
"""Controls of `spatial_ttt.eval.controls` that can be asked here."""
BRANCH = 96  # tokens of a question and its answer
PATIENCE = 600.0  # seconds for all homes


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask, write, print; 0 when done."""
    chosen = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    device = setup.pick_device(chosen.device)
    dtype = setup.pick_dtype(chosen.dtype, device)
    tokenizer = load_tokenizer(chosen.model)
    model = load_model(chosen.model, dtype=dtype).to(device).eval()
    ring = unseen_homes(chosen, chosen.model / "tokenizer.json", device)
    about = {
        "benchmark": "homes made on the spot",
        "model": str(chosen.model.name),
        "homes": len(ring.ready),
        "split": chosen.split,
        "stage": f"{chosen.plan}/{chosen.stage}",
        "mode": "branches of one ingest",
        "dtype": str(dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "commit": chosen.commit,
        "spatial_ttt": __version__,
    }
    summaries: dict[str, Summary] = {}
    for way in chosen.ways:
        began = time.monotonic()
        replies = predictions(ask(model, tokenizer, ring, way, chosen.questions))
        folder = chosen.out / way
        claim_folder(folder, about | {"control": way}, is_writer=True)
        (folder / PREDICTIONS).unlink(missing_ok=True)
        with PredictionLog(folder / PREDICTIONS) as lines:
            for one in replies:
                lines.append(one)
        summaries[way] = write_report(folder, replies, about | {"control": way})
        log.info("%s: %d questions in %.0f s", way, len(replies), time.monotonic() - began)
    rows = rows_to_json(baseline_rows([_item(one) for one in replies]))
    (chosen.out / "constants.json").write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")
    text = table(summaries, rows)
    (chosen.out / "table.md").write_text(text + "\n")
    log.info("%s:\n%s", chosen.out / "table.md", text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m spatial_ttt.train.measure", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of weights")
    parser.add_argument("--out", type=Path, required=True, help="folder for the replies")
    parser.add_argument("--homes", type=int, default=200)
    parser.add_argument("--questions", type=int, default=32, help="of each home, at most")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["none", "blind", "one_frame"])
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--plan", default="homes", help="curriculum the stage is taken from")
    parser.add_argument("--stage", default="home")
    parser.add_argument("--seed", type=int, default=0, help="first home of the split")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--samples", type=int, default=1, help="rays a side per pixel")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--commit", default="unknown")
    return parser


def unseen_homes(chosen: argparse.Namespace, tokenizer: Path, device: torch.device) -> ClipRing:
    """A ring with the homes of a split that the stage asks about."""
    stage = next(stage for stage in plan(chosen.plan) if stage.name == chosen.stage)
    ring = ClipRing(stage.spec, chosen.homes, device)
    first = home_seed(chosen.split, chosen.seed)
    order = Order(
        ring=ring,
        difficulty=stage.difficulty,
        branch_length=BRANCH,
        next_seed=first,
        last_seed=first + chosen.homes,
        most_under_way=chosen.homes,
        task_size=min(8, -(-chosen.homes // chosen.workers)),
    )
    source: ClipSource = setup.start_workers(chosen, tokenizer, device)
    source.orders.append(order)
    began = time.monotonic()
    try:
        while not order.is_done:
            if not source.pump():
                time.sleep(0.001)
            if time.monotonic() - began > PATIENCE:
                raise TimeoutError(f"no homes after {PATIENCE:.0f} s: {source.describe()}")
    finally:
        source.close()
    log.info("%d homes in %.0f s", len(ring.ready), time.monotonic() - began)
    return ring


def ask(
    model: SpatialTTTForConditionalGeneration,
    tokenizer: Any,
    ring: ClipRing,
    way: str,
    questions: int,
) -> list[Reply]:
    """Replies to all homes of a ring under a control."""
    control = CONTROLS[way]
    prefix, slots = _shown(tokenizer, ring.spec, control.shown)
    taken = variant(model, control.options) if control.shown == "clip" else nullcontext()
    with taken:
        return answer_ring(
            model,
            tokenizer,
            ring,
            prefix,
            branches=questions,
            blind=control.shown == "nothing",
            slots=slots,
        )


def _shown(tokenizer: Any, spec: ClipSpec, shown: str) -> tuple[Prefix, slice | None]:
    """The words before a question, and which slots are seen (None: all)."""
    if shown == "nothing":
        return blind_prefix(tokenizer), None
    if shown == "one_frame":
        middle = spec.num_slots // 2
        lone = ClipSpec(num_slots=1, fps=spec.fps, width=spec.width, height=spec.height)
        return clip_prefix(tokenizer, lone), slice(middle, middle + 1)
    return clip_prefix(tokenizer, spec), None


def predictions(replies: Sequence[Reply]) -> list[Prediction]:
    """Replies as the evaluation keeps them; questions of one home are resampled together."""
    return [
        Prediction(
            item_id=f"{one.seed}-{number}",
            question_type=one.kind,
            kind="number" if one.kind in NUMBERS else "choice",
            answer=one.truth,
            reply=one.reply,
            question=one.question.split("\n")[0],
            options=tuple(re.findall(r"^[A-H]\. .+$", one.question, re.MULTILINE)),
            clip=(f"home {one.seed}",),
        )
        for number, one in enumerate(replies)
    ]


def _item(one: Prediction) -> BenchmarkItem:
    return BenchmarkItem(
        item_id=one.item_id,
        question_type=one.question_type,
        kind=one.kind,
        question=one.question,
        options=one.options,
        answer=one.answer,
        clip=Clip(()),
    )


def table(summaries: dict[str, Summary], rows: dict[str, dict[str, dict[str, object]]]) -> str:
    """Markdown: a line per type, a column per way, then chance and the best constant answer."""
    names = list(summaries)
    first = summaries[names[0]]
    head = ["type", "n", *(f"{name}, 95 %" for name in names), "chance", "frequency"]
    lines = [head, ["---"] * len(head)]
    types = {**first.types, **first.subtypes}
    for kind, line in types.items():
        cells = [_cell({**summaries[n].types, **summaries[n].subtypes}[kind]) for n in names]
        constants = [_points(rows[name].get(kind)) for name in ("random", "frequency")]
        lines.append([kind, str(line.n), *cells, *constants])
    whole = [_cell(summaries[n].macro) for n in names]
    lines.append(["mean of the types", str(first.macro.n), *whole, "", ""])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(line: Any) -> str:
    low, high = line.interval.low, line.interval.high
    between = "" if math.isnan(low) else f" ({low:.1f} to {high:.1f})"
    return f"{line.score:.1f}{between}"


def _points(score: dict[str, object] | None) -> str:
    return "" if score is None else f"{float(str(score['score'])):.1f}"


if __name__ == "__main__":
    sys.exit(main())
