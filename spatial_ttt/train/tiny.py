"""Train the small model in one command, from scenes to weights, within a wall-clock budget.

    python -m spatial_ttt.train.tiny --minutes 8 --publish OUT
    torchrun --nproc-per-node 2 -m spatial_ttt.train.tiny --minutes 8 --publish OUT

Workers furnish homes and write questions, the device draws and trains, held-out homes are asked
about now and then, weights are saved every minute. Nothing is downloaded and nothing is needed.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    for name in ("workers", "clips", "branches", "capacity"):
        if getattr(chosen, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(chosen, name)}")
    if chosen.attention is None:
        if chosen.resume and (chosen.memory_from is not None or chosen.shrink is not None):
            parser.error(
                "with --resume the default is --attention hybrid, which has no use for --memory-from and --shrink; "
                "say --attention annealed, or leave them out"
            )
        chosen.attention = "hybrid" if chosen.resume else "annealed"
    chosen.memory_from = 0.3 if chosen.memory_from is None else chosen.memory_from
    chosen.shrink = chosen.shrink or [0.35, 0.65]
    if chosen.attention.startswith("annealed") and chosen.gate_bias:
        parser.error("--attention annealed begins with closed gates: not with --gate-bias")
    if chosen.gate_bias is None:
        chosen.gate_bias = 1.0 if chosen.attention == "hybrid" else 0.0
    return smoke(chosen) if chosen.smoke else chosen


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m spatial_ttt.train.tiny", description=__doc__)
    _add_run(parser)
    _add_machine(parser)
    _add_model(parser)
    _add_steps(parser)
    _add_clips(parser)
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--minutes", type=float, default=8.0, help="wall-clock budget, all included"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("runs/output/tiny"), help="working folder"
    )
    parser.add_argument(
        "--publish", type=Path, help="copy what matters here (few files, each <= 15 MB)"
    )
    parser.add_argument(
        "--resume", type=Path, help="folder of an earlier run: weights and tokenizer"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eval-clips", type=int, default=160)
    parser.add_argument("--eval-every", type=float, default=75.0, help="seconds")
    parser.add_argument(
        "--max-steps", type=int, default=0, help="stop after so many steps (0: by time)"
    )
    parser.add_argument("--smoke", action="store_true", help="a tiny run on a CPU, under a minute")


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="compile the token-wise parts (default: on a GPU)",
    )
    parser.add_argument(
        "--kernels", choices=["auto", "reference", "triton"], help="see spatial_ttt.model.kernels"
    )
    parser.add_argument(
        "--show-syncs", action="store_true", help="warn of what makes the host wait for the GPU"
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="tiny")
    parser.add_argument(
        "--ttt", action="append", default=[], metavar="KEY=VALUE", help="change a TTT field"
    )
    parser.add_argument(
        "--gate-bias",
        type=float,
        help="of fresh gates; 0 is the paper's (default: 1 for hybrid, else 0)",
    )
    parser.add_argument(
        "--attention",
        choices=["annealed", "annealed_window", "hybrid", "window", "full"],
        help="of TTT layers: from full attention to window and fast weights, or to the window alone; both from the "
        "start; the window alone; full attention alone (default: annealed, hybrid with --resume)",
    )
    parser.add_argument(
        "--memory-from",
        type=float,
        help="progress at which fast weights come on, where they are annealed (default: 0.3)",
    )
    parser.add_argument(
        "--shrink",
        type=float,
        nargs=2,
        metavar=("FROM", "UNTIL"),
        help="progress between which the window shrinks, where it is annealed (default: 0.35 0.65)",
    )


def _add_steps(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clips", type=int, default=64, help="clips a step")
    parser.add_argument(
        "--micro", type=int, default=0, help="clips a forward pass (0: all of a step)"
    )
    parser.add_argument("--branches", type=int, default=16, help="questions of each clip a step")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument(
        "--no-muon-optimizer", action="store_true", help="AdamW for all slow weights"
    )
    parser.add_argument("--warmup", type=int, default=100, help="steps to the peak learning rate")
    parser.add_argument("--dense", type=float, default=0.5, help="weight of the dense read-outs")
    parser.add_argument(
        "--blind-every", type=int, default=12, help="every so many steps without video"
    )


def _add_clips(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plan", default="full", help="curriculum: full, relations, homes, routes, hours, ..."
    )
    parser.add_argument(
        "--begin", type=float, default=0.0, help="progress 0..1 the curriculum begins at"
    )
    parser.add_argument("--capacity", type=int, default=8192, help="clips kept on the device")
    parser.add_argument("--samples", type=int, default=1, help="rays a side per pixel")
    parser.add_argument("--fresh", type=float, default=0.3, help="new clips per clip trained on")


def smoke(chosen: argparse.Namespace) -> argparse.Namespace:
    """Settings that show on a CPU that everything fits together."""
    changes = {
        "minutes": 0.7,
        "preset": "test",
        "workers": 1,
        "clips": 2,
        "branches": 4,
        "plan": "smoke",
    }
    changes |= {
        "capacity": 12,
        "eval_clips": 2,
        "eval_every": 15.0,
        "max_steps": 12,
        "fresh": 1.0,
        "warmup": 4,
        "device": "cpu",
    }
    changes |= {"dtype": "float32" if chosen.dtype == "auto" else chosen.dtype, "blind_every": 4}
    return argparse.Namespace(**(vars(chosen) | changes))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 0 when it ended as planned."""
    chosen = parse(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout, force=True
    )
    # Scene workers do small sums: more threads than one each only get in each other's way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if chosen.kernels:
        os.environ["SPATIAL_TTT_KERNELS"] = chosen.kernels
    from spatial_ttt.train.ranks import joined
    from spatial_ttt.train.tiny_run import TinyRun

    with joined(chosen) as ranks:
        if not ranks.is_first:
            logging.getLogger("spatial_ttt").setLevel(logging.ERROR)
        run = TinyRun(chosen, ranks)
        try:
            run.train()
        finally:
            run.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
