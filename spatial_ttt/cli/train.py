"""`spatial-ttt train`: one stage of a recipe, alone or under torchrun; `spatial-ttt average`: runs become one model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

STOPPED = 143
"""Exit code after SIGTERM, as shells report it: schedulers see that the run is not done."""


def register(app: typer.Typer) -> None:
    """Add `train` and `average` to the command line."""
    app.command("train")(train_command)
    app.command("average")(average_command)


def train_command(
    stage: Annotated[int, typer.Option(help="1: scene descriptions, 2: questions.")],
    config: Annotated[Path, typer.Option(help="The recipe, e.g. runs/tiny_cpu.yaml.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE, e.g. data.packs_per_step=4.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint, if there is one.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Train one stage of a recipe; stopped by SIGTERM or Ctrl-C, it saves first.

    Writes OUT/stageN: checkpoints/, metrics.jsonl, tensorboard/, curves.png and, at the end, model/.
    Several GPUs: torchrun --nproc-per-node 8 -m spatial_ttt train ...
    Example: spatial-ttt train --stage 1 --config runs/tiny_cpu.yaml --set seed=7
    """
    from spatial_ttt.train.settings import load_recipe

    recipe = load_recipe(config, stage, changes or ())
    from spatial_ttt.train.trainer import train  # loads torch: only once the recipe is right

    outcome = train(recipe, stage, resume=resume)
    if outcome.is_first:
        typer.echo(outcome.to_json() if as_json else outcome.sentence())
    if outcome.was_stopped:
        raise typer.Exit(STOPPED)


def average_command(
    models: Annotated[list[Path], typer.Argument(help="Folders of models, or of runs.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
) -> None:
    """Write the mean of several models' weights: of runs that went on from one model it is often better than each.

    Example: spatial-ttt average runs/one/model runs/two/model --out mean
    """
    from spatial_ttt.train.averaged import average

    average(models, out)
    typer.echo(out)
