"""`demo`: a held-out walkthrough through the shipped model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add `demo` to the command line."""
    app.command("demo")(demo)


def demo(
    out: Annotated[Path, typer.Option(help="HTML page to write.")] = Path("out/demo.html"),
    model: Annotated[
        Path | None, typer.Option(help="Checkpoint folder instead of the shipped model.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Stream a walkthrough the model has never seen and answer questions about it.

    Prints question, answer and truth, time per frame and bytes of memory; writes a page to look at.
    Example: spatial-ttt demo --out demo.html
    """
    from transformers.utils import logging as hf_logging

    from spatial_ttt import demo as demonstration
    from spatial_ttt.loading import open_model

    hf_logging.disable_progress_bar()  # of weights that load in no time
    loaded = open_model(model, device=device)

    def show(answer: demonstration.Answered) -> None:
        item = answer.item
        typer.echo(f"{item.question_type:28s} {item.question.splitlines()[0][:90]}")
        score = f"{100 * answer.score:.0f}"
        typer.echo(f"{'':28s} answer {answer.reply!r}, truth {item.answer!r}, score {score}")

    result = demonstration.run_demo(loaded, on_answer=show)
    out.parent.mkdir(parents=True, exist_ok=True)
    demonstration.write_page(result, out)
    typer.echo(f"{result.summary()}; page {out}")
