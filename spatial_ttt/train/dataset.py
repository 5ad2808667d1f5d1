"""Packs of ready samples, read ahead by threads, in the order of the plan.

    plan -> this process's packs -> threads decode and size frames, cut words into tokens -> LoadedPack

A sample that cannot be read ends the run, or is left out, told and counted: nothing takes its place.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from spatial_ttt.data_format import Sample, read_media
from spatial_ttt.errors import DataError, SpatialTTTError
from spatial_ttt.processor import Processor
from spatial_ttt.train.conversation import Encoded, Medium, encode, media_order, name_of
from spatial_ttt.train.packing import StepPlan, Unit
from spatial_ttt.train.run_config import DataConfig
from spatial_ttt.train.samples import SampleIndex
from spatial_ttt.train.watching import watch_image, watch_video

log = logging.getLogger(__name__)

PACKS_AHEAD = 2


class LoadedSample(NamedTuple):
    """A sample on the CPU, ready for the model."""

    name: str
    encoded: Encoded
    frames: tuple[Tensor, ...]  # uint8 [2 S, H, W, 3] of each medium, in order

    @property
    def grids(self) -> tuple[tuple[int, int, int], ...]:
        """(slots, height, width) of each medium, height and width in pixels."""
        return tuple((f.shape[0] // 2, f.shape[1], f.shape[2]) for f in self.frames)

    def pinned(self) -> LoadedSample:
        """The same with frames where a GPU can fetch them while the host goes on."""
        return self._replace(frames=tuple(frames.pin_memory() for frames in self.frames))


class LoadedPack(NamedTuple):
    """The samples of one pack; may be empty at the end of an epoch."""

    samples: tuple[LoadedSample, ...]
    num_bad: int


def load_sample(
    sample: Sample, root: Path, config: DataConfig, processor: Processor
) -> LoadedSample:
    """Watch a sample's videos and images and put its words into tokens."""
    unit = processor.frames.unit
    frames, media = [], []
    for path, is_image in media_order(sample):
        source = read_media(root, path)
        watched = (
            watch_image(source, processor)
            if is_image
            else watch_video(source, config.frames, processor, sample.visible_until_s)
        )
        grid = (watched.frames.shape[1] // unit, watched.frames.shape[2] // unit)
        frames.append(watched.frames)
        media.append(Medium(watched.times, grid, is_image))
    return LoadedSample(name_of(sample), encode(sample, media, processor), tuple(frames))


class PackLoader:
    """This process's packs from `first_step` on; close it to end its threads."""

    def __init__(
        self,
        index: SampleIndex,
        config: DataConfig,
        processor: Processor,
        units: Iterator[Unit],
        *,
        pinned: bool = False,
    ) -> None:
        """`pinned`: samples are (see `LoadedSample.pinned`)."""
        self._index = index
        self._config = config
        self._processor = processor
        self._units = units
        self._pinned = pinned
        self._pool = ThreadPoolExecutor(config.workers, thread_name_prefix="reader")
        self._ahead: deque[list[Future[LoadedSample]]] = deque()
        self.num_bad = 0

    def ready(self) -> tuple[LoadedSample, ...] | None:
        """Samples of the next pack, those left out that cannot be read; None while it is read, and after the last."""
        if not self._ahead or not all(task.done() for task in self._ahead[0]):
            return None
        return tuple(task.result() for task in self._ahead[0] if task.exception() is None)

    def next_pack(self) -> LoadedPack:
        """The next pack, as soon as it is read."""
        while len(self._ahead) <= PACKS_AHEAD:
            unit = next(self._units, None)
            if unit is None:
                break
            self._ahead.append([task for number in unit for task in self._submit(number)])
        if not self._ahead:
            return LoadedPack((), 0)
        samples, bad = [], 0
        for task in self._ahead.popleft():
            problem = task.exception()
            if problem is None:
                samples.append(task.result())
            elif isinstance(problem, SpatialTTTError):
                self._tell(problem)
                bad += 1
            else:
                raise problem
        return LoadedPack(tuple(samples), bad)

    def close(self) -> None:
        """Stop reading ahead."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, number: int) -> Iterator[Future[LoadedSample]]:
        root = self._index.root(number) if self._config.root is None else Path(self._config.root)
        for sample in self._index.pack(number):
            yield self._pool.submit(
                _load, sample, root, self._config, self._processor, self._pinned
            )

    def _tell(self, problem: SpatialTTTError) -> None:
        self.num_bad += 1
        if self._config.on_bad_sample == "raise":
            raise DataError(
                f"{problem}; mend or remove the sample, or leave such samples out with "
                f"data.on_bad_sample=skip"
            ) from problem
        log.error("left out (%d so far in this process): %s", self.num_bad, problem)
        if self.num_bad >= self._config.max_bad_samples:
            raise DataError(
                f"{self.num_bad} samples could not be read, data.max_bad_samples allows fewer; the last: {problem}"
            ) from problem


def _load(
    sample: Sample, root: Path, config: DataConfig, processor: Processor, pinned: bool
) -> LoadedSample:
    """`load_sample` with the sample's name in every error."""
    try:
        loaded = load_sample(sample, root, config, processor)
    except SpatialTTTError as error:
        raise DataError(f"{name_of(sample)} cannot be trained on: {error}") from error
    return loaded.pinned() if pinned else loaded


def my_units(plan: StepPlan, first_step: int, rank: int, world: int) -> Iterator[Unit]:
    """This process's packs of all steps from `first_step` on, in order."""
    for step in range(first_step, plan.num_steps):
        yield from plan.share(step, rank, world)
