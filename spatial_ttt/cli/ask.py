"""`ask`, `watch`, `inspect`, `import-checkpoint`: use a model, look at it, bring one in."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from spatial_ttt.loading import LoadedModel

Model = Annotated[
    Path | None, typer.Option(help="Checkpoint folder; without it the shipped model.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float64.")]
Size = Annotated[str | None, typer.Option(help="Resize frames to HEIGHTxWIDTH pixels.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per answer.")]
MaxTokens = Annotated[int, typer.Option("--max-new-tokens", help="Longest answer, in tokens.")]
AnchorBytes = Annotated[
    int | None, typer.Option(help="Keep at most so many bytes of keys and values (default: all).")
]
AnchorBits = Annotated[int, typer.Option(help="16, or 8 to quantise bounded keys and values.")]
Temperature = Annotated[float, typer.Option(help="0 is greedy; above, answers are sampled.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("ask")(ask)
    app.command("watch")(watch)
    app.command("inspect")(inspect)
    app.command("import-checkpoint")(import_checkpoint)


def ask(
    video: Annotated[
        str, typer.Argument(help="Video file, image folder, camera:0 or rtsp:// address.")
    ],
    questions: Annotated[list[str], typer.Argument(help="One or more questions about it.")],
    model: Model = None,
    fps: Annotated[float | None, typer.Option(help="Frames taken per second (default 2).")] = None,
    frames: Annotated[int | None, typer.Option(help="Take so many frames, evenly spread.")] = None,
    size: Size = None,
    device: Device = "auto",
    dtype: Precision = "auto",
    max_new_tokens: MaxTokens = 128,
    temperature: Temperature = 0.0,
    top_p: Annotated[float, typer.Option(help="Sample from the likeliest share.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of sampling.")] = 0,
    anchor_bytes: AnchorBytes = None,
    anchor_bits: AnchorBits = 16,
    as_json: AsJson = False,
    profile: Annotated[bool, typer.Option(help="Print where the time went.")] = False,
) -> None:
    """Watch a video once and answer questions about it.

    Example: spatial-ttt ask walk.mp4 "How many chairs are in this room?"
    """
    from spatial_ttt import viewing
    from spatial_ttt.generate import Decoding

    decoding = Decoding(
        max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed
    )
    loaded = open_for_use(model, device, dtype, size)
    fps = 2.0 if fps is None and frames is None else fps
    anchors = viewing.anchor_policy(loaded, anchor_bytes, anchor_bits)
    how: dict[str, Any] = {"fps": fps, "num_frames": frames, "anchors": anchors}
    if len(questions) == 1:  # is read with the last piece
        viewer, only = viewing.answer_source(loaded, video, questions[0], decoding, **how)
        answers = [only]
    else:
        viewer = viewing.watch_source(loaded, video, **how)
        answers = [viewer.session.ask(question, decoding) for question in questions]
    for question, pieces in zip(questions, answers, strict=True):
        if as_json:
            record = {"question": question, "answer": "".join(pieces), "model": loaded.name}
            typer.echo(json.dumps(record | viewer.figures()))
        else:
            _stream(pieces)
    if profile:
        typer.echo(viewer.profile(), err=True)


def watch(
    source: Annotated[
        str, typer.Argument(help="Camera (camera:0), rtsp:// address or video file.")
    ],
    model: Model = None,
    fps: Annotated[float, typer.Option(help="Frames taken per second.")] = 2.0,
    size: Size = None,
    device: Device = "auto",
    dtype: Precision = "auto",
    max_new_tokens: MaxTokens = 128,
    anchor_bytes: AnchorBytes = None,
    anchor_bits: AnchorBits = 16,
) -> None:
    """Watch a live stream; type a question at any moment, an empty line or Ctrl-D ends.

    A line on stderr shows slots seen, frames per second and bytes of state.
    Example: spatial-ttt watch camera:0
    """
    from spatial_ttt import viewing
    from spatial_ttt.generate import Decoding

    loaded = open_for_use(model, device, dtype, size)
    anchors = viewing.anchor_policy(loaded, anchor_bytes, anchor_bits)
    decoding = Decoding(max_new_tokens=max_new_tokens)
    viewing.watch_live(loaded, source, fps=fps, decoding=decoding, say=_stream, anchors=anchors)


def inspect(
    model: Annotated[Path | None, typer.Argument(help="Checkpoint folder or preset name.")] = None,
    size: Size = None,
    as_json: AsJson = False,
) -> None:
    """Show a model's configuration, its parameters and the bytes a session of it takes.

    Example: spatial-ttt inspect spatial_ttt_2b
    """
    from spatial_ttt import inspecting

    report = inspecting.inspect_model(model, _size(size))
    typer.echo(json.dumps(report.to_dict(), indent=2) if as_json else report.to_text())


def import_checkpoint(
    source: Annotated[
        Path, typer.Argument(help="Folder of a stock Qwen3-VL or the authors' model.")
    ],
    target: Annotated[Path, typer.Argument(help="Folder to write.")],
    use_muon: Annotated[bool, typer.Option("--use-muon/--no-muon", help="Orthogonalise writes.")],
    norm_placement: Annotated[str, typer.Option(help="post (paper) or pre (authors' training).")],
    chunk_size: Annotated[int, typer.Option(help="Tokens per write.")] = 2648,
    window_size: Annotated[int, typer.Option(help="Tokens of the attention window.")] = 2648,
) -> None:
    """Turn a stock Qwen3-VL or the authors' Spatial-TTT into a checkpoint that says its rule.

    The tensors do not tell which update rule they were trained with, so name it.
    Example: spatial-ttt import-checkpoint Qwen3-VL-2B out --use-muon --norm-placement post
    """
    from spatial_ttt import importing

    summary = importing.import_folder(
        source,
        target,
        use_muon=use_muon,
        norm_placement=norm_placement,
        chunk_size=chunk_size,
        window_size=window_size,
    )
    typer.echo(summary, err=True)


def open_for_use(model: Path | None, device: str, dtype: str, size: str | None) -> LoadedModel:
    """The model that a verb's options name; says so where it is not a trained one."""
    from transformers.utils import logging as hf_logging

    from spatial_ttt.loading import open_model

    hf_logging.disable_progress_bar()  # of weights that load in no time
    loaded = open_model(model, device=device, dtype=dtype, size=_size(size))
    if not loaded.is_trained:
        typer.echo(
            "note: no trained model ships yet; these answers come from random weights", err=True
        )
    return loaded


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise typer.BadParameter(f"{text!r} is no size; write HEIGHTxWIDTH, for example 352x480")
    return int(height), int(width)


def _stream(pieces: Any) -> None:
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
