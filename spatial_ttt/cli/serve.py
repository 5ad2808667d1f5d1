"""`serve` and `connect`: sessions over the network, and a terminal that uses them."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from spatial_ttt.cli.ask import Device, MaxTokens, Model, Precision, Size, open_for_use

_SUFFIXES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("serve")(serve)
    app.command("connect")(connect)


def serve(
    model: Model = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(help="Lines NAME TOKEN; each name sees its own sessions only.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option(help="Let everybody in without tokens, also from other machines.")
    ] = False,
    max_state_bytes: Annotated[
        str,
        typer.Option(
            help="All sessions' memory, with the engine they share on a GPU; K, M, G and T are understood."
        ),
    ] = "4G",
    max_frames: Annotated[
        int, typer.Option(help="Frames a session is promised room for, unless it asks.")
    ] = 7200,
    anchor_bytes: Annotated[
        str | None, typer.Option(help="Bound each session's anchors, so that it never grows.")
    ] = None,
    snapshot_dir: Annotated[
        Path | None, typer.Option(help="Where sessions outlive the server.")
    ] = None,
    snapshot_seconds: Annotated[
        float, typer.Option(help="Sessions that saw frames are saved so often.")
    ] = 10.0,
    max_snapshot_bytes: Annotated[str, typer.Option(help="All snapshots together.")] = "64G",
    idle_seconds: Annotated[
        float, typer.Option(help="Unused sessions leave memory after so long.")
    ] = 900.0,
    camera: Annotated[
        list[str] | None, typer.Option(help="NAME=rtsp://... (or camera:0); clients see the name.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Further name of this server, behind a proxy.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    model_threads: Annotated[int, typer.Option(help="Model steps at once; 0: as fits.")] = 0,
    decoders: Annotated[int, typer.Option(help="Processes that decode frames.")] = 2,
    size: Size = None,
    device: Device = "auto",
    dtype: Precision = "auto",
) -> None:
    """Serve sessions: watch many streams, answer questions at any moment, lose nothing.

    Example: spatial-ttt serve --max-state-bytes 2G, then open http://127.0.0.1:8000
    """
    from spatial_ttt.serve.server import run_server
    from spatial_ttt.serve.settings import ServeSettings, default_snapshot_dir

    settings = ServeSettings(
        host=host,
        port=port,
        token_file=token_file,
        insecure=insecure,
        max_state_bytes=parse_bytes(max_state_bytes),
        max_frames=max_frames,
        anchor_bytes=None if anchor_bytes is None else parse_bytes(anchor_bytes),
        snapshot_dir=snapshot_dir or default_snapshot_dir(),
        snapshot_s=snapshot_seconds,
        max_snapshot_bytes=parse_bytes(max_snapshot_bytes),
        idle_s=idle_seconds,
        cameras=parse_cameras(camera or []),
        allowed_hosts=tuple(allow_host or ()),
        tls_certificate=tls_cert,
        tls_key=tls_key,
        model_threads=model_threads,
        decoders=decoders,
    )
    run_server(lambda: open_for_use(model, device, dtype, size), settings)


def connect(
    url: Annotated[str, typer.Argument(help="Server, for example http://127.0.0.1:8000.")],
    session: Annotated[
        str | None, typer.Option(help="Go on with this session instead of a new one.")
    ] = None,
    watch: Annotated[
        str | None,
        typer.Option(
            help="Video, folder, camera:0, rtsp:// or lerobot:FOLDER#EPISODE to send meanwhile."
        ),
    ] = None,
    rerun: Annotated[
        Path | None, typer.Option(help="Record frames, memory and answers for the Rerun viewer.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of a new session.")] = "terminal",
    fps: Annotated[float, typer.Option(help="Frames sent per second of the source.")] = 2.0,
    token: Annotated[
        str | None, typer.Option(envvar="SPATIAL_TTT_TOKEN", help="Better given by environment.")
    ] = None,
    max_new_tokens: MaxTokens = 128,
) -> None:
    """Use a server from the terminal: each line is a question, `:fork`, `:keep`, `:stats` or `:quit`.

    Example: echo "How many chairs?" | spatial-ttt connect http://127.0.0.1:8000 --watch walk.mp4
    """
    from spatial_ttt.serve import terminal
    from spatial_ttt.serve.client import Server
    from spatial_ttt.serve.rerun_log import RerunLog

    with ExitStack() as stack:
        frames = terminal.open_frames(watch, fps) if watch else None
        log = stack.enter_context(RerunLog(rerun)) if rerun else None
        server = stack.enter_context(Server(url, token))
        chosen = server.session(session) if session else server.open(name)
        feeder = terminal.Feeder(chosen, frames, log) if frames else None
        terminal.connect(chosen, terminal.Console(sys.stdin, max_new_tokens, log), feeder)


def parse_bytes(text: str) -> int:
    """A number of bytes such as 2G or 500M."""
    number = text.rstrip("kKmMgGtTiB")
    suffix = text[len(number) :].lower().rstrip("b").rstrip("i")
    try:
        return int(float(number) * _SUFFIXES[suffix])
    except (ValueError, KeyError, OverflowError) as error:
        raise typer.BadParameter(f"{text!r} is no number of bytes; write 2G or 500M") from error


def parse_cameras(items: list[str]) -> dict[str, str]:
    """NAME=ADDRESS items as a table."""
    table = {}
    for item in items:
        name, sign, address = item.partition("=")
        if not sign or not name or not address:
            raise typer.BadParameter(f"{item!r} is no camera; write NAME=rtsp://...")
        table[name] = address
    return table
