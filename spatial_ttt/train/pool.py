"""Clips for training, made while training: workers furnish and ask, the device draws and keeps.

worker: homes, cameras -> device: pictures into the ring, pixel counts -> worker: questions -> ring.
Nothing here blocks the training loop: `pump` does what is ready and returns.
"""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from spatial_ttt.errors import DataError
from spatial_ttt.scenes.raycast import RayCameras, RayLayers, RayScenes
from spatial_ttt.train.clip_types import (
    KINDS,
    MAX_OBJECTS,
    ClipSpec,
    Difficulty,
    Filmed,
    Record,
    SceneTask,
    Sighting,
    categories,
)
from spatial_ttt.train.scene_worker import run_worker

log = logging.getLogger(__name__)

LABEL_STRIDE = 8  # pixels between dense labels
HEAD_START = 2  # tasks a worker has at hand


class Batch(NamedTuple):
    """B clips with Q branches each."""

    frames: Tensor  # uint8 [B, T, H, W, 3]
    ids: Tensor  # long [B, Q, Lq]
    start: NDArray[np.int64]  # [B, Q] first answer token
    stop: NDArray[np.int64]  # [B, Q]
    kind: NDArray[np.int64]  # [B, Q] index into KINDS
    truth: list[list[str]]
    category: Tensor  # uint8 [B, T, h, w] category of every 8th pixel
    depth: Tensor  # float16 [B, T, h, w] m
    pose: Tensor  # [B, S, 4]
    count: Tensor  # uint8 [B, S, K]
    place: Tensor  # [B, K, 2]


class ClipRing:
    """Clips of one spec, the oldest overwritten first."""

    def __init__(self, spec: ClipSpec, capacity: int, device: torch.device) -> None:
        self.spec, self.capacity, self.device = spec, capacity, device
        shape = (capacity, spec.num_frames)
        small = (spec.height // LABEL_STRIDE, spec.width // LABEL_STRIDE)
        kinds = len(categories())
        self.frames = torch.zeros(*shape, spec.height, spec.width, 3, dtype=torch.uint8, device=device)
        self.category = torch.zeros(*shape, *small, dtype=torch.uint8, device=device)
        self.depth = torch.zeros(*shape, *small, dtype=torch.float16, device=device)
        self.pose = torch.zeros(capacity, spec.num_slots, 4, device=device)
        self.count = torch.zeros(capacity, spec.num_slots, kinds, dtype=torch.uint8, device=device)
        self.place = torch.zeros(capacity, kinds, 2, device=device)
        self.records: list[Record | None] = [None] * capacity
        self.ready: list[int] = []
        self.where: dict[int, int] = {}
        self.next = 0

    def reserve(self, count: int) -> list[int]:
        """Places for new clips; what stood there is gone."""
        places = [(self.next + n) % self.capacity for n in range(count)]
        self.next = (self.next + count) % self.capacity
        for place in places:
            if self.records[place] is not None:
                self._drop(place)
        return places

    def _drop(self, place: int) -> None:
        at, last = self.where.pop(place), self.ready.pop()
        if last != place:
            self.ready[at] = last
            self.where[last] = at
        self.records[place] = None

    def fill(self, places: Sequence[int], records: Sequence[Record]) -> None:
        """Make clips ready for use; clips nothing can be asked about are left out."""
        index = to_device(np.array(places), self.device)
        for name in ("pose", "count", "place"):
            stacked = np.stack([getattr(record.facts, name) for record in records])
            getattr(self, name)[index] = to_device(stacked, self.device)
        for place, record in zip(places, records, strict=True):
            if not record.exchanges.truth:
                continue
            self.records[place] = record
            self.where[place] = len(self.ready)
            self.ready.append(place)

    def batch(
        self, rng: Generator, clips: int, branches: int, weights: NDArray[np.float64]
    ) -> Batch:
        """Random clips, `branches` exchanges of each, kinds drawn by `weights` [KINDS]."""
        if not self.ready:
            raise DataError("the ring holds no clip yet; pump until it does")
        places = [self.ready[n] for n in rng.integers(len(self.ready), size=clips)]
        return self.collect(places, [self._choose(p, rng, branches, weights) for p in places])

    def _choose(
        self, place: int, rng: Generator, branches: int, weights: NDArray[np.float64]
    ) -> NDArray[np.intp]:
        record = self.records[place]
        assert record is not None
        kind = record.exchanges.kind
        share = weights[kind] / np.bincount(kind, minlength=len(KINDS))[kind]
        keys = rng.random(len(kind)) ** (1.0 / np.maximum(share, 1e-6))
        chosen = np.argsort(-keys)[:branches]
        return np.resize(chosen, branches)

    def collect(self, places: Sequence[int], chosen: Sequence[NDArray[np.intp]]) -> Batch:
        """The batch of these clips with these exchanges."""
        found = [record for place in places if (record := self.records[place]) is not None]
        pairs = list(zip(found, chosen, strict=True))
        ids = np.stack([record.exchanges.ids[rows] for record, rows in pairs]).astype(np.int64)
        start, stop, kind = (
            np.stack([getattr(record.exchanges, name)[rows] for record, rows in pairs]).astype(np.int64)
            for name in ("start", "stop", "kind")
        )
        truth = [[record.exchanges.truth[row] for row in rows] for record, rows in pairs]
        longest = min(ids.shape[-1], -(-int(stop.max()) // 8) * 8)
        index = to_device(np.array(places), self.device)
        arrays = (getattr(self, name)[index] for name in ("category", "depth", "pose", "count", "place"))
        on_device = to_device(ids[..., :longest].copy(), self.device)
        return Batch(self.frames[index], on_device, start, stop, kind, truth, *arrays)


Caster = Callable[[Any, Any], RayLayers]
"""Scenes and cameras -> pictures, ids, depths."""


def best_caster(device: torch.device, samples: int = 1) -> tuple[Caster, str]:
    """The Triton ray caster on a GPU, the reference elsewhere; and its name.

    `samples` rays a side are cast per pixel.
    """
    from spatial_ttt.scenes import raycast

    if device.type == "cuda":
        return partial(raycast.raycast_triton, samples=samples, num_objects=MAX_OBJECTS), "triton"
    return partial(raycast.raycast, samples=samples), "reference"


class _Waiting(NamedTuple):
    """Pictures drawn, pixel counts on their way to the host."""

    worker: int
    places: list[int]
    tickets: list[int]
    pixels: Tensor
    done: Any  # torch.cuda.Event | None


class ClipSource:
    """Workers that keep a ring full."""

    def __init__(
        self, workers: int, arguments: tuple[str, tuple[str, str]], caster: Caster, seeds: tuple[int, int]
    ) -> None:
        """`arguments` are the tokenizer's file and the two prompts; `seeds` the first and one past the last."""
        context = multiprocessing.get_context("spawn")
        self.caster = caster
        self.next_seed, self.last_seed = seeds
        self.connections: list[Connection] = []
        self.processes = []
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=run_worker, args=(theirs, *arguments), daemon=True)
            process.start()
            theirs.close()
            self.connections.append(ours)
            self.processes.append(process)
        self.at_hand = [0] * workers
        self.waiting: list[_Waiting] = []
        self.expected: list[dict[int, tuple[ClipRing, int]]] = [{} for _ in range(workers)]
        self.rings: dict[ClipSpec, ClipRing] = {}
        self.made = self.drawn = self.dropped = self.turn = 0

    def pump(
        self,
        ring: ClipRing,
        difficulty: Difficulty,
        branch_length: int,
        *,
        task_size: int = 16,
        limit: int | None = None,
    ) -> int:
        """Hand out tasks, draw what is furnished, keep what is asked; returns the clips made ready.

        About `limit` clips are drawn at most: drawing takes the host's time from training.
        """
        self.rings[ring.spec] = ring
        before, drawn = self.made, self.drawn
        for worker, connection in enumerate(self.connections):
            while self.at_hand[worker] < HEAD_START and self.next_seed < self.last_seed:
                seeds = tuple(range(self.next_seed, min(self.next_seed + task_size, self.last_seed)))
                self.next_seed += len(seeds)
                connection.send(SceneTask(seeds, ring.spec, difficulty, branch_length))
                self.at_hand[worker] += 1
        for n in range(len(self.connections)):
            worker = (n + self.turn) % len(self.connections)
            while (limit is None or self.drawn - drawn < limit) and self.connections[worker].poll():
                self._receive(worker, *self.connections[worker].recv())
        self.turn += 1
        self._send_sightings()
        return self.made - before

    def _receive(self, worker: int, what: str, content: Any, task: SceneTask | None) -> None:
        if what == "filmed":
            assert task is not None
            self.at_hand[worker] -= 1
            self.drawn += len(content)
            self._draw(worker, content, self.rings[task.spec])
            return
        expected = self.expected[worker]
        by_ring: dict[ClipSpec, list[tuple[int, Record]]] = {}
        for record in content:
            ring, place = expected.pop(record.ticket)
            by_ring.setdefault(ring.spec, []).append((place, record))
            self.dropped += record.dropped
        for spec, pairs in by_ring.items():
            self.rings[spec].fill([place for place, _ in pairs], [record for _, record in pairs])
        self.made += len(content)

    @torch.no_grad()
    def _draw(self, worker: int, filmed: list[Filmed], ring: ClipRing) -> None:
        spec, device = ring.spec, ring.device
        layers = self.caster(*_on_device(filmed, spec, device))
        places = ring.reserve(len(filmed))
        index = to_device(np.array(places), device)
        ids = layers.object_id.long()
        half = LABEL_STRIDE // 2
        grid = (..., slice(half, None, LABEL_STRIDE), slice(half, None, LABEL_STRIDE))
        lookup = to_device(np.stack([item.category for item in filmed]), device)
        small = ids[grid]
        ring.frames[index] = layers.rgb
        ring.category[index] = lookup.gather(1, small.flatten(1)).reshape(small.shape)
        ring.depth[index] = layers.depth[grid].to(torch.float16)
        pixels = count_pixels(ids) if layers.pixels is None else layers.pixels
        done = None
        if device.type == "cuda":
            host = torch.empty(pixels.shape, dtype=pixels.dtype, pin_memory=True)
            host.copy_(pixels, non_blocking=True)
            done = torch.cuda.Event()
            done.record()
            pixels = host
        self.waiting.append(_Waiting(worker, places, [item.ticket for item in filmed], pixels, done))
        for place, item in zip(places, filmed, strict=True):
            self.expected[worker][item.ticket] = (ring, place)

    def _send_sightings(self) -> None:
        later = []
        for waiting in self.waiting:
            if waiting.done is not None and not waiting.done.query():
                later.append(waiting)
                continue
            pixels = waiting.pixels.numpy()
            sightings = [Sighting(t, p) for t, p in zip(waiting.tickets, pixels, strict=True)]
            self.connections[waiting.worker].send(sightings)
        self.waiting = later

    @property
    def is_idle(self) -> bool:
        """All seeds are used up and nothing is on its way."""
        busy = any(self.at_hand) or any(self.expected) or self.waiting
        return self.next_seed >= self.last_seed and not busy

    def check_alive(self) -> None:
        """Raise if a worker died."""
        dead = [p.exitcode for p in self.processes if not p.is_alive()]
        if dead:
            raise DataError(f"{len(dead)} scene workers ended with exit codes {dead}; see their output above")

    def close(self) -> None:
        """End the workers."""
        for connection in self.connections:
            try:
                connection.send(None)
            except (BrokenPipeError, OSError):
                continue
        for process in self.processes:
            process.join(timeout=2)
            if process.is_alive():
                process.terminate()


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """The array on a device; a GPU fetches it while the host goes on."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _on_device(
    filmed: Sequence[Filmed], spec: ClipSpec, device: torch.device
) -> tuple[RayScenes, RayCameras]:
    """Scenes padded to the same number of parts, and their cameras."""
    sizes = [len(item.records) for item in filmed]
    records = np.zeros((len(filmed), max(sizes), filmed[0].records.shape[1]), np.float32)
    for row, item in zip(records, filmed, strict=True):
        row[: len(item.records)] = item.records
    scenes = RayScenes(to_device(records, device), to_device(np.array(sizes, np.int32), device))
    poses = to_device(np.stack([item.poses for item in filmed]).astype(np.float32), device)
    lenses = to_device(np.array([item.lens for item in filmed], np.float32), device)
    return scenes, RayCameras(poses, lenses, spec.width, spec.height)


def count_pixels(ids: Tensor) -> Tensor:
    """Pixels of each object id: [B, T, H, W] long -> int32 [B, T, MAX_OBJECTS], without a host sync."""
    batch, frames = ids.shape[:2]
    row = torch.arange(batch * frames, device=ids.device)[:, None] * MAX_OBJECTS
    flat = (ids.reshape(batch * frames, -1) + row).flatten()
    counts = torch.zeros(batch * frames * MAX_OBJECTS, dtype=torch.int32, device=ids.device)
    counts.scatter_add_(0, flat, torch.ones_like(flat, dtype=torch.int32))
    return counts.reshape(batch, frames, MAX_OBJECTS)


def kind_weights(weights: Mapping[str, float]) -> NDArray[np.float64]:
    """Weights of kinds by name as an array; a kind not named has none."""
    return np.array([weights.get(kind, 0.0) for kind in KINDS])
