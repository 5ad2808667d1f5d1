"""`spatial-ttt bench`: speed and memory beside the stock model, as JSON lines, a table and plots."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from spatial_ttt.bench.plan import BenchPlan
    from spatial_ttt.bench.run import Told
    from spatial_ttt.bench.subject import Subject

Preset = Annotated[
    str | None,
    typer.Option(
        help="Random weights: spatial_ttt_2b, tiny or test (default: the first on a GPU, tiny else)."
    ),
]
Model = Annotated[Path | None, typer.Option(help="Checkpoint folder instead of random weights.")]
What = Annotated[
    str, typer.Option(help="prefill, question, live, bounded, sessions; commas between.")
]
Modes = Annotated[str, typer.Option(help="stock, exact (all keys), bounded; commas between.")]
Frames = Annotated[str, typer.Option(help="Lengths of prefill and question; commas between.")]
Engine = Annotated[str, typer.Option(help="How ours steps: plain or steady (static shapes).")]
Pieces = Annotated[
    int | None,
    typer.Option(
        help="Slots (of two frames) pushed at once (default: 64 with the plain engine on a GPU, else 16)."
    ),
]
Size = Annotated[str | None, typer.Option(help="Frames of HEIGHTxWIDTH pixels.")]
Repeats = Annotated[int, typer.Option(help="Timed runs of prefill; the median is told.")]
Questions = Annotated[int, typer.Option(help="Questions asked after a stream, each on a fork.")]
AnswerTokens = Annotated[int, typer.Option(help="Tokens decoded per answer.")]
LiveBefore = Annotated[int, typer.Option(help="Slots seen before live ones are timed.")]
LiveSlots = Annotated[int, typer.Option(help="Live slots timed, one at a time.")]
AskEvery = Annotated[int, typer.Option(help="Live: slots from question to question.")]
BoundedFrames = Annotated[int, typer.Option(help="Frames of the bounded stream.")]
AnchorBytes = Annotated[int, typer.Option(help="Bytes of keys and values in bounded mode.")]
AnchorBits = Annotated[int, typer.Option(help="16, or 8 to quantise bounded keys and values.")]
Sessions = Annotated[int, typer.Option(help="Sessions of a server at 2 frames per second.")]
SessionBefore = Annotated[int, typer.Option(help="Slots each session has seen before.")]
SessionSlots = Annotated[int, typer.Option(help="Timed slots of each session.")]
Peak = Annotated[float | None, typer.Option(help="TFLOP/s of the device, for MFU.")]
Out = Annotated[Path | None, typer.Option(help="File that JSON lines are appended to.")]
Plot = Annotated[Path | None, typer.Option(help="Folder of plots (PNG).")]
Profile = Annotated[int, typer.Option(help="Then profile a clip of so many frames.")]
ProfileLive = Annotated[int, typer.Option(help="Then profile so many live slots.")]
ProfileQuestion = Annotated[
    int, typer.Option(help="Then profile a question after a stream of so many frames.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float64.")]
Commit = Annotated[str | None, typer.Option(help="Commit to record where there is no repository.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the lines instead of a table.")]


def register(app: typer.Typer) -> None:
    """Add `bench` to the command line."""
    app.command("bench")(bench)


def bench(
    context: typer.Context,
    preset: Preset = None,
    model: Model = None,
    what: What = "prefill",
    modes: Modes = "stock,exact,bounded",
    frames: Frames = "128,256,512,1024",
    engine: Engine = "plain",
    slots_per_piece: Pieces = None,
    size: Size = None,
    repeats: Repeats = 3,
    questions: Questions = 16,
    answer_tokens: AnswerTokens = 32,
    live_before: LiveBefore = 600,
    live_slots: LiveSlots = 300,
    ask_every: AskEvery = 20,
    bounded_frames: BoundedFrames = 7200,
    anchor_bytes: AnchorBytes = 256 << 20,
    anchor_bits: AnchorBits = 16,
    sessions: Sessions = 32,
    session_before: SessionBefore = 32,
    session_slots: SessionSlots = 10,
    peak_tflops: Peak = None,
    out: Out = None,
    plot: Plot = None,
    profile: Profile = 0,
    profile_live: ProfileLive = 0,
    profile_question: ProfileQuestion = 0,
    device: Device = "auto",
    dtype: Precision = "auto",
    commit: Commit = None,
    as_json: AsJson = False,
) -> None:
    """Measure time to first token, latency, throughput and memory beside stock Qwen3-VL.

    Frames are random pixels, on the device already (of sessions: not yet, as in a server).
    Every figure is one JSON line as soon as it is known.
    Example: spatial-ttt bench --what prefill,live --frames 128,1024 --out bench.jsonl --plot plots
    """
    import json

    from spatial_ttt.bench import plots, record, table
    from spatial_ttt.bench.run import run

    plan, subject = _asked(context.params)
    record.check_writable(out, plot)
    if plot is not None:
        plots.check_plotting()
    where = record.surroundings(subject.device, commit)
    lines = []
    with _bar() as told:
        for found in run(plan, subject, told):
            lines.append(where | found)
            record.append(out, lines[-1])
    typer.echo("\n".join(map(json.dumps, lines)) if as_json else table.render(lines))
    for path in plots.draw(lines, plot) if plot is not None else []:
        typer.echo(f"plot: {path}", err=True)
    for text in _profiles(plan, subject, profile, profile_live, profile_question):
        typer.echo(text)


def _profiles(
    plan: BenchPlan, subject: Subject, clip: int, live: int, question: int
) -> Iterator[str]:
    """What was asked to be looked at in detail, after everything was timed."""
    from spatial_ttt.bench import profiling

    if clip or live:
        yield profiling.profile_run(plan, subject, clip, live)
    if question:
        yield profiling.profile_question(plan, subject, question)


def _asked(given: dict[str, Any]) -> tuple[BenchPlan, Subject]:
    """The options as a checked plan and what it is measured on."""
    from spatial_ttt.bench.plan import BenchPlan, frame_size, whole_numbers, words
    from spatial_ttt.bench.subject import open_subject
    from spatial_ttt.inference import PIECE_SLOTS
    from spatial_ttt.loading import resolve_device, resolve_dtype

    if given["preset"] is not None and given["model"] is not None:
        raise typer.BadParameter("give --preset or --model, not both")
    named = {field.name: given[field.name] for field in fields(BenchPlan) if field.name in given}
    lists = {
        "measures": words(given["what"]),
        "modes": words(given["modes"]),
        "frames": whole_numbers("frames", given["frames"]),
    }
    device = resolve_device(given["device"])
    if named["slots_per_piece"] is None:  # a steady step is of at most a chunk
        is_long = device.type == "cuda" and given["engine"] == "plain"
        named["slots_per_piece"] = PIECE_SLOTS["cuda"] if is_long else 16
    plan = BenchPlan(**(named | lists))
    default = "spatial_ttt_2b" if device.type == "cuda" else "tiny"
    subject = open_subject(
        given["model"] or given["preset"] or default,
        None if given["size"] is None else frame_size(given["size"]),
        device,
        resolve_dtype(given["dtype"], device),
    )
    return plan, subject


@contextlib.contextmanager
def _bar() -> Iterator[Told]:
    """A line on stderr: what is measured, and the frames watched so far."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from spatial_ttt.bench.run import Told

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.completed:.0f} frames"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        line = bar.add_task("loading")
        yield Told(
            begin=lambda name: bar.reset(line, description=name),
            tick=lambda frames: bar.advance(line, frames),
        )
