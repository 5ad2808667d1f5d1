"""`spatial-ttt eval`: run a benchmark, score replies, compare two runs, compute baselines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

eval_app = typer.Typer(
    help="Run benchmarks, score replies of any model, compare runs, compute blind baselines.",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    """Add `eval` to the command line."""
    app.add_typer(eval_app, name="eval")


@eval_app.command("baseline")
def baseline(
    questions: Annotated[Path, typer.Argument(help="VSI-Bench's question file (.jsonl).")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Score guessing at random and always giving one answer, per VSI-Bench type.

    Example: spatial-ttt eval baseline VSI-Bench/test.jsonl --json
    """
    from spatial_ttt.eval import baselines, tables
    from spatial_ttt.eval.benchmarks.vsi_bench import read_questions

    rows = baselines.baseline_rows(read_questions(questions))
    if as_json:
        typer.echo(json.dumps(baselines.rows_to_json(rows), indent=2))
    else:
        typer.echo(tables.baseline_table(rows))
