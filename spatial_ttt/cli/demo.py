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
    from spatial_ttt import demo as demonstration
    from spatial_ttt.loading import open_model

    loaded = open_model(model, device=device)

    def show(answer: demonstration.Answered) -> None:
        question = answer.item.question.splitlines()[0]
        typer.echo(f"{answer.item.question_type:28s} {question[:90]}")
        typer.echo(
            f"{'':28s} answer {answer.reply!r}, truth {answer.item.answer!r}, score {100 * answer.score:.0f}"
        )

    result = demonstration.run_demo(loaded, on_answer=show)
    out.parent.mkdir(parents=True, exist_ok=True)
    demonstration.write_page(result, out)
    stats, count = result.stats, len(result.answers)
    mean = 100 * sum(a.score for a in result.answers) / max(1, count)
    typer.echo(
        f"{count} questions, mean score {mean:.0f}; {stats.num_frames} frames at {1e3 * result.seconds_per_frame:.1f} ms "
        f"each; state {stats.state_bytes:,} bytes; page {out}"
    )
