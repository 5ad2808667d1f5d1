"""From a request in plain values to a finished run with its reports: what `spatial-ttt eval` does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spatial_ttt.errors import ConfigError
from spatial_ttt.eval.benchmarks import Benchmark, FrameSampling, load_benchmark
from spatial_ttt.eval.controls import ControlSettings
from spatial_ttt.eval.evaluate import OnReply, RunSettings, Worker, run_benchmark
from spatial_ttt.eval.interface import NotOffered, SpatialModel
from spatial_ttt.eval.report import report_folder
from spatial_ttt.eval.scoring import Summary


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One `spatial-ttt eval` in plain values."""

    benchmark: str
    data: Path
    out: Path
    model: str | None = None
    """Checkpoint folder, "prior", or None for the shipped model."""
    only: Mapping[str, str] = field(default_factory=dict)
    num_frames: int | None = None
    fps: float | None = None
    size: tuple[int, int] | None = None
    device: str = "auto"
    dtype: str = "auto"
    settings: RunSettings = field(default_factory=RunSettings)


def worker_from_environment() -> Worker:
    """This process's place among torchrun's, or alone."""
    return Worker(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def prepare(request: Request) -> tuple[SpatialModel, Benchmark, RunSettings]:
    """Read the benchmark (first: its mistakes are found in seconds), then open the model."""
    benchmark = load_benchmark(request.benchmark, request.data, only=request.only)
    sampling = choose_sampling(benchmark.sampling, request)
    from spatial_ttt.eval.models import open_model  # loads torch: only once all else is right

    model = open_model(request.model, device=_device(request.device), dtype=request.dtype)
    return model, benchmark, replace(request.settings, sampling=sampling)


def launch(request: Request, on_reply: OnReply | None = None) -> Summary | None:
    """Run and report one request; None on the processes that only help."""
    model, benchmark, settings = prepare(request)
    worker = worker_from_environment()
    if run_benchmark(model, benchmark, request.out, settings, worker, on_reply) is None:
        return None
    return report_folder(request.out)


def launch_controls(
    request: Request, controls: list[str], on_reply: OnReply | None = None
) -> dict[str, str] | None:
    """Run several controls into `out/CONTROL`; None on the processes that only help.

    Returns the controls that the model does not offer, each with its reason.
    """
    refused: dict[str, str] = {}
    model, benchmark, settings = prepare(request)
    worker = worker_from_environment()
    for name in controls:
        folder = request.out / name
        chosen = replace(settings, control=name)
        try:
            predictions = run_benchmark(model, benchmark, folder, chosen, worker, on_reply)
        except NotOffered as error:
            refused[name] = str(error)
            continue
        if predictions is not None:
            report_folder(folder)
    return refused if worker.rank == 0 else None


def choose_sampling(default: FrameSampling, request: Request) -> FrameSampling:
    """The benchmark's sampling with what the request changes."""
    sampling = default
    if request.num_frames is not None and request.fps is not None:
        raise ConfigError("--frames and --fps both say which frames to take; give one")
    if request.num_frames is not None or request.fps is not None:
        if default.doubled:
            raise ConfigError("every image is shown twice; --frames and --fps are for videos")
        sampling = replace(sampling, num_frames=request.num_frames, fps=request.fps)
    if request.size is not None:
        sampling = replace(sampling, height=request.size[0], width=request.size[1])
    return sampling


def parse_selection(texts: list[str]) -> dict[str, str]:
    """`--only KEY=VALUE` options as a mapping."""
    selection = {}
    for text in texts:
        key, mark, value = text.partition("=")
        if not (key and mark and value):
            raise ConfigError(f"--only takes KEY=VALUE, for example split=10mins, got {text!r}")
        selection[key] = value
    return selection


def parse_size(text: str | None) -> tuple[int, int] | None:
    """`HEIGHTxWIDTH` in pixels."""
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise ConfigError(f"{text!r} is no size; write HEIGHTxWIDTH, for example 352x480")
    return int(height), int(width)


def request_from(given: Mapping[str, Any], settings: RunSettings) -> Request:
    """A request from the command line's values by name."""
    return Request(
        benchmark=given["benchmark"],
        data=Path(given["data"]),
        out=Path(given["out"]),
        model=given["model"],
        only=parse_selection(list(given["only"] or [])),
        num_frames=given["frames"],
        fps=given["fps"],
        size=parse_size(given["size"]),
        device=given["device"],
        dtype=given["dtype"],
        settings=settings,
    )


def settings_from(
    profile: str, control: str, max_new_tokens: int | None, numbers: Mapping[str, int]
) -> RunSettings:
    """Run settings from command-line values; `numbers` are the fields of `ControlSettings`."""
    return RunSettings(
        profile=profile,
        control=control,
        max_new_tokens=max_new_tokens,
        control_settings=ControlSettings(**numbers),
    )


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A rich bar on stderr, on the first process only; yields what to call after every reply."""
    from rich.console import Console
    from rich.progress import (  # fmt: skip
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
    is_quiet = worker_from_environment().rank != 0
    with Progress(*columns, console=Console(stderr=True), disable=is_quiet) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _device(name: str) -> str:
    """Under torchrun every process takes the GPU of its local rank."""
    local = os.environ.get("LOCAL_RANK")
    if name != "auto" or local is None:
        return name
    import torch

    return f"cuda:{local}" if torch.cuda.is_available() else "cpu"
