"""The runner: each clip is watched once, and all its questions are asked on forks of that session.

clips of the benchmark -> this process's share -> watch up to each question's time -> fork, ask, log
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spatial_ttt import __version__
from spatial_ttt.errors import ConfigError, DataError
from spatial_ttt.eval import frames as clip_frames
from spatial_ttt.eval.benchmarks.item import Benchmark, BenchmarkItem, Clip, FrameSampling
from spatial_ttt.eval.controls import Control, ControlSettings, find_control
from spatial_ttt.eval.interface import (
    EvalSession,
    MemoryAdopter,
    NotOffered,
    SessionOptions,
    SpatialModel,
)
from spatial_ttt.eval.parsing import official_number
from spatial_ttt.eval.predictions import (
    Prediction,
    PredictionLog,
    claim_folder,
    log_path,
    merge,
    prediction_of,
    read_folder,
    wait_for_all,
)
from spatial_ttt.eval.profiles import Profile, build_prompt, load_profile
from spatial_ttt.video.frame import Frame

CLOCK_SLACK_S = 1e-3
"""Containers round times, often to milliseconds: a frame at 7.8 s may be stamped 7.8003 s."""

OnReply = Callable[[int, int], None]
"""Called with (replies done, replies in all) of this process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """How a benchmark is run."""

    profile: str = "paper"
    control: str = "none"
    control_settings: ControlSettings = field(default_factory=ControlSettings)
    sampling: FrameSampling | None = None
    """None: the benchmark's own."""
    max_new_tokens: int | None = None
    """None: each item's own."""


@dataclass(frozen=True, slots=True)
class Worker:
    """This process among those that share the run (torchrun's RANK and WORLD_SIZE)."""

    rank: int = 0
    world_size: int = 1
    poll_s: float = 1.0
    patience_s: float = 3600.0

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(f"rank {self.rank} of {self.world_size} processes cannot be")


@dataclass(frozen=True, slots=True)
class _Job:
    """One clip and its unanswered questions, in order of their times."""

    clip: Clip
    donor: Clip
    items: tuple[BenchmarkItem, ...]


def run_benchmark(
    model: SpatialModel,
    benchmark: Benchmark,
    folder: Path,
    settings: RunSettings,
    worker: Worker | None = None,
    on_reply: OnReply | None = None,
) -> list[Prediction] | None:
    """Ask every question that has no reply in `folder` yet.

    Returns all replies in the benchmark's order, on the process of rank 0; None on the others.
    """
    worker = worker or Worker()
    control = find_control(settings.control)
    items = tuple(item for item in benchmark.items if control.takes(item))
    if not items:
        raise DataError(f"{benchmark.name} has no question the control {control.name!r} is for")
    run = describe_run(model, benchmark, settings)
    claim_folder(folder, run, is_writer=worker.rank == 0)
    done = {prediction.item_id for prediction in read_folder(folder)}
    jobs = _share(plan(items), done, worker)
    asker = Asker(model, benchmark, settings)
    total, answered = sum(len(job.items) for job in jobs), 0
    for job in jobs:
        with PredictionLog(log_path(folder, worker.rank, worker.world_size)) as log:
            for prediction in asker.answer(job):
                log.append(prediction)
                answered += 1
                if on_reply is not None:
                    on_reply(answered, total)
    if worker.rank != 0:
        return None
    wanted = {item.item_id for item in items}
    wait_for_all(folder, wanted, poll_s=worker.poll_s, patience_s=worker.patience_s)
    return merge(folder, [item.item_id for item in items])


def describe_run(
    model: SpatialModel, benchmark: Benchmark, settings: RunSettings
) -> dict[str, Any]:
    """Everything that decides the replies: the header of the run and of its report."""
    profile = load_profile(settings.profile)
    control = find_control(settings.control)
    sampling = settings.sampling or benchmark.sampling
    options = control.session_options(settings.control_settings, profile.system_prompt)
    return {
        "spatial_ttt": __version__,
        "benchmark": benchmark.name,
        "benchmark_version": benchmark.version,
        "dataset_revision": benchmark.revision,
        "num_items": len(benchmark.items),
        "items": _digest(item.item_id for item in benchmark.items),
        "is_complete": benchmark.is_complete,
        "model": asdict(model.card),
        "prompt_profile": profile.label,
        "frame_times": profile.frame_times,
        "frames": sampling.describe(),
        "control": control.name,
        "control_settings": asdict(settings.control_settings),
        "mode": options.mode,
        "session_options": options.changes(),
        "decoding": "greedy",
        "max_new_tokens": settings.max_new_tokens or "the benchmark's own",
    }


def plan(items: Sequence[BenchmarkItem]) -> list[_Job]:
    """One job per clip in order of first appearance; each clip's donor is the next clip."""
    by_clip: dict[str, list[BenchmarkItem]] = {}
    for item in items:
        by_clip.setdefault(item.clip.key, []).append(item)
    groups = list(by_clip.values())
    return [
        _Job(
            group[0].clip,
            groups[(index + 1) % len(groups)][0].clip,
            tuple(sorted(group, key=_ask_time)),
        )
        for index, group in enumerate(groups)
    ]


class Asker:
    """Answers jobs with one model under one control."""

    def __init__(self, model: SpatialModel, benchmark: Benchmark, settings: RunSettings) -> None:
        self._model = model
        self._settings = settings
        self._control: Control = find_control(settings.control)
        self._profile: Profile = load_profile(settings.profile)
        self._sampling = settings.sampling or benchmark.sampling
        self._options: SessionOptions = self._control.session_options(
            settings.control_settings, self._profile.system_prompt
        )

    def answer(self, job: _Job) -> Iterator[Prediction]:
        """Yield the reply to each of the job's items, as soon as it is known."""
        if self._control.shown == "segments":
            yield from self._sum_segments(job)
            return
        donor = self._watch_donor(job) if self._control.swaps_memory else None
        offset = self._second_pass_start(job) if self._control.shown == "twice" else 0.0
        viewer = _Viewer(self._model.open_session(self._options), self._frames(job, offset))
        try:
            for item in job.items:
                viewer.watch_until(_ask_time(item) + offset)
                yield self._ask(viewer, item, donor)
        finally:
            viewer.session.close()
            if donor is not None:
                donor.close()

    def _open(self, clip: Clip) -> Iterator[Frame]:
        return clip_frames.open_clip(clip, self._sampling, self._profile.frame_times)

    def _frames(self, job: _Job, offset_s: float) -> Iterator[Frame]:
        shown = self._control.shown
        if shown == "nothing":
            return iter(())
        if shown == "one_frame":
            count = sum(1 for _ in self._open(job.clip))
            return iter(clip_frames.middle_frame(self._open(job.clip), count))
        if shown == "other_clip":
            _need_donor(job)
            return self._open(job.donor)
        if shown == "twice":
            second = clip_frames.shifted(self._open(job.clip), offset_s)
            return itertools.chain(self._open(job.clip), second)
        return self._open(job.clip)

    def _second_pass_start(self, job: _Job) -> float:
        """The second showing begins one frame's time after the first has ended."""
        times = [frame.time for frame in self._open(job.clip)]
        return times[-1] + (times[-1] / (len(times) - 1) if len(times) > 1 else 1.0)

    def _watch_donor(self, job: _Job) -> EvalSession:
        _need_donor(job)
        donor = self._model.open_session(self._options)
        donor.observe(self._open(job.donor))
        return donor

    def _ask(self, viewer: _Viewer, item: BenchmarkItem, donor: EvalSession | None) -> Prediction:
        prompt = build_prompt(item, self._profile)
        max_new_tokens = self._settings.max_new_tokens or item.max_new_tokens
        started = time.perf_counter()
        fork = viewer.session.fork()
        try:
            if donor is not None:
                _adopt(fork, donor)
            reply = "".join(fork.ask(prompt, max_new_tokens=max_new_tokens))
        finally:
            fork.close()
        return prediction_of(
            item,
            reply,
            prompt=prompt,
            seen_s=viewer.seen_s,
            num_frames=viewer.num_frames,
            wall_s=round(time.perf_counter() - started, 4),
        )

    def _sum_segments(self, job: _Job) -> Iterator[Prediction]:
        """Each item anew: a fresh session per piece of the clip, the pieces' counts added."""
        for item in job.items:
            parts: list[str] = []
            last: Prediction | None = None
            seen = (f for f in self._open(job.clip) if f.time <= _ask_time(item))
            size = self._settings.control_settings.segment_frames
            for segment in clip_frames.in_groups(seen, size):
                start = segment[0].time
                viewer = _Viewer(
                    self._model.open_session(self._options),
                    clip_frames.shifted(segment, -start),
                )
                viewer.watch_until(float("inf"))
                last = self._ask(viewer, item, None)
                viewer.session.close()
                parts.append(last.reply)
            total = sum(official_number(part) or 0.0 for part in parts)
            yield prediction_of(
                item,
                f"{total:g}",
                prompt=last.prompt if last else "",
                seen_s=last.seen_s if last else None,
                parts=tuple(parts),
            )


class _Viewer:
    """A session and the frames still to come; watches up to a time."""

    def __init__(self, session: EvalSession, frames: Iterator[Frame]) -> None:
        self.session = session
        self.seen_s: float | None = None
        self.num_frames = 0
        self._frames = frames
        self._waiting: Frame | None = None

    def watch_until(self, until_s: float) -> None:
        """Observe every frame stamped at most `until_s`; a later one waits for the next call."""
        self.session.observe(self._up_to(until_s))

    def _up_to(self, until_s: float) -> Iterator[Frame]:
        while True:
            frame = self._waiting or next(self._frames, None)
            self._waiting = None
            if frame is None:
                return
            if frame.time > until_s:
                self._waiting = frame
                return
            self.seen_s = frame.time
            self.num_frames += 1
            yield frame


def _share(jobs: list[_Job], done: set[str], worker: Worker) -> list[_Job]:
    """This process's jobs without the answered items.

    Clips are dealt out before answered items are dropped: the processes read the folder at
    different moments, and must agree on who does what.
    """
    mine = jobs[worker.rank :: worker.world_size]
    left = [
        _Job(job.clip, job.donor, tuple(item for item in job.items if item.item_id not in done))
        for job in mine
    ]
    return [job for job in left if job.items]


def _ask_time(item: BenchmarkItem) -> float:
    """The last second the item's viewer may have seen, with room for a container's rounding."""
    return float("inf") if item.ask_time_s is None else item.ask_time_s + CLOCK_SLACK_S


def _digest(names: Iterable[str]) -> str:
    """Which items were chosen, in 16 digits: two selections of one size must not mix."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def _need_donor(job: _Job) -> None:
    if job.donor.key == job.clip.key:
        raise DataError("this control needs at least two clips; the selection has one")


def _adopt(fork: EvalSession, donor: EvalSession) -> None:
    if not isinstance(fork, MemoryAdopter):
        raise NotOffered(
            f"{type(fork).__name__} cannot take another session's fast weights (adopt_memory); "
            "the control other_memory needs a model that can"
        )
    fork.adopt_memory(donor)
