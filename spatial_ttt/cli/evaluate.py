"""`spatial-ttt eval`: run a benchmark, score replies, compare two runs, compute baselines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from spatial_ttt.eval.launch import Request

eval_app = typer.Typer()

_NAMES = "vsi-bench, mindcube-tiny, mindcube, vsr, vsc, vsc-streaming or procedural"
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Model = Annotated[
    str | None, typer.Option(help='Checkpoint folder, or "prior"; without it the shipped model.')
]
Name = Annotated[str | None, typer.Option(help=f"{_NAMES}.")]
Data = Annotated[
    Path | None, typer.Option(help="Folder of the benchmark's files, or its question file.")
]
Out = Annotated[
    Path, typer.Option(help="Folder of replies and reports; a run begun there goes on.")
]
Profile = Annotated[str, typer.Option(help="Prompts and frame times: paper or authors.")]
Only = Annotated[
    list[str] | None, typer.Option(help="KEY=VALUE: only this question_type, split, dataset, ...")
]
Frames = Annotated[int | None, typer.Option(help="Take so many frames, evenly spread.")]
Fps = Annotated[float | None, typer.Option(help="Take so many frames per second.")]
Size = Annotated[str | None, typer.Option(help="Resize frames to HEIGHTxWIDTH pixels.")]
MaxTokens = Annotated[int | None, typer.Option(help="Longest reply, in tokens.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float64.")]
SegmentFrames = Annotated[int, typer.Option(help="Frames per piece of segment_and_sum.")]
AnchorBytes = Annotated[
    int, typer.Option("--anchor-bytes", help="Bytes that bounded_anchors may keep.")
]


def register(app: typer.Typer) -> None:
    """Add `eval` to the command line."""
    app.add_typer(eval_app, name="eval")


@eval_app.callback(invoke_without_command=True)
def evaluate(
    context: typer.Context,
    benchmark: Name = None,
    data: Data = None,
    out: Out = Path("out/eval"),
    model: Model = None,
    control: Annotated[str, typer.Option(help="What to take away; see eval controls.")] = "none",
    profile: Profile = "paper",
    only: Only = None,
    frames: Frames = None,
    fps: Fps = None,
    size: Size = None,
    max_new_tokens: MaxTokens = None,
    device: Device = "auto",
    dtype: Precision = "auto",
    segment_frames: SegmentFrames = 600,
    anchor_budget_bytes: AnchorBytes = 1 << 30,
) -> None:
    """Run benchmarks, score replies of any model, compare runs, compute blind baselines.

    Each clip is watched once, its questions are asked on forks. Writes predictions.jsonl,
    report.json and report.html; killed and started again, it goes on.
    Several GPUs: torchrun --nproc-per-node 8 -m spatial_ttt eval ...
    Example: spatial-ttt eval --benchmark vsi-bench --data VSI-Bench --model my-checkpoint
    """
    if context.invoked_subcommand is not None:
        return
    from spatial_ttt.eval import launch, report

    request = _request(context.params)
    with launch.progress_bar(request.benchmark) as on_reply:
        summary = launch.launch(request, on_reply)
    if summary is not None:
        typer.echo(report.score_table(summary, request.benchmark))
        typer.echo(f"report: {out / report.REPORT_HTML}", err=True)


@eval_app.command("controls")
def controls(
    context: typer.Context,
    benchmark: Name = None,
    data: Data = None,
    out: Out = Path("out/controls"),
    model: Model = None,
    names: Annotated[
        str, typer.Option("--controls", help="Names with commas between; all: every one.")
    ] = "all",
    profile: Profile = "paper",
    only: Only = None,
    frames: Frames = None,
    fps: Fps = None,
    size: Size = None,
    max_new_tokens: MaxTokens = None,
    device: Device = "auto",
    dtype: Precision = "auto",
    segment_frames: SegmentFrames = 600,
    anchor_budget_bytes: AnchorBytes = 1 << 30,
    as_json: AsJson = False,
) -> None:
    """Run a benchmark as it is and with something taken away, and compare by question.

    Example: spatial-ttt eval controls --benchmark procedural --data test --controls blind,offline
    """
    from spatial_ttt.eval import compare, controls_report, launch
    from spatial_ttt.eval.controls import chosen_controls

    request = _request(context.params | {"control": "none"})
    with launch.progress_bar(request.benchmark) as on_reply:
        refused = launch.launch_controls(request, chosen_controls(names), on_reply)
    if refused is None:
        return
    results = controls_report.report_controls(out, refused)
    if as_json:
        record = {name: compare.comparison_json(one) for name, one in results.items()}
        typer.echo(json.dumps(record, indent=2))
        return
    for name, one in results.items():
        typer.echo(f"A: as it is; B: {name}\n{compare.comparison_table(one)}\n")
    for name, reason in refused.items():
        typer.echo(f"{name} was not run: {reason}", err=True)


@eval_app.command("score")
def score(
    predictions: Annotated[Path, typer.Argument(help="Replies: ours, lmms-eval's, or a run.")],
    benchmark: Name = None,
    data: Data = None,
    out: Annotated[Path | None, typer.Option(help="Also write the reports there.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score any model's replies again. With --benchmark and --data the answer key must match.

    Example: spatial-ttt eval score logs/samples_vsibench.jsonl --json
    """
    from spatial_ttt.eval import report
    from spatial_ttt.eval.foreign import read_scored_replies
    from spatial_ttt.eval.scoring import summarise, summary_json

    replies = read_scored_replies(predictions, benchmark, data)
    summary = summarise(replies)
    if out is not None:
        report.write_report(out, replies, {"benchmark": benchmark, "replies": str(predictions)})
    if as_json:
        typer.echo(json.dumps(summary_json(summary), indent=2))
    else:
        typer.echo(report.score_table(summary, benchmark or "vsi-bench"))


@eval_app.command("compare")
def compare_runs(
    a: Annotated[Path, typer.Argument(help="Replies of A: a run's folder or a file.")],
    b: Annotated[Path, typer.Argument(help="Replies of B, about the same questions.")],
    as_json: AsJson = False,
) -> None:
    """Compare two runs question by question, with paired bootstrap over clips.

    Example: spatial-ttt eval compare out/none out/memory_off
    """
    from spatial_ttt.eval import compare
    from spatial_ttt.eval.foreign import read_replies

    result = compare.compare(read_replies(a), read_replies(b))
    if as_json:
        typer.echo(json.dumps(compare.comparison_json(result), indent=2))
    else:
        typer.echo(compare.comparison_table(result))


@eval_app.command("baseline")
def baseline(
    questions: Annotated[
        Path, typer.Argument(help="VSI-Bench's test.jsonl, or our examples.jsonl.")
    ],
    as_json: AsJson = False,
) -> None:
    """Score guessing at random and always giving one answer, per VSI-Bench type.

    Example: spatial-ttt eval baseline VSI-Bench/test.jsonl --json
    """
    from spatial_ttt.eval import baselines, tables
    from spatial_ttt.eval.benchmarks import read_questions

    rows = baselines.baseline_rows(read_questions(questions))
    if as_json:
        typer.echo(json.dumps(baselines.rows_to_json(rows), indent=2))
    else:
        typer.echo(tables.baseline_table(rows))


def _request(given: dict[str, object]) -> Request:
    """The options of `eval` and `eval controls` as one request."""
    from spatial_ttt.eval import launch

    if given["benchmark"] is None or given["data"] is None:
        raise typer.BadParameter(f"give --benchmark ({_NAMES}) and --data FOLDER")
    numbers = {key: int(str(given[key])) for key in ("segment_frames", "anchor_budget_bytes")}
    tokens = given["max_new_tokens"]
    return launch.request_from(
        given,
        launch.settings_from(
            str(given["profile"]),
            str(given["control"]),
            None if tokens is None else int(str(tokens)),
            numbers,
        ),
    )
