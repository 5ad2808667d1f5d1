"""Furnished homes -> pictures and labels in a ring, pixel counts on their way back to the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from spatial_ttt.scenes.raycast import RayCameras, RayLayers, RayScenes
from spatial_ttt.scenes.shading import RECORD_SIZE
from spatial_ttt.train.clip_types import MAX_OBJECTS, ClipSpec, Filmed
from spatial_ttt.train.devices import to_device
from spatial_ttt.train.ring import LABEL_STRIDE, ClipRing

PART_STEP = 16  # parts are padded to a multiple: kernels are compiled for fewer sizes

Caster = Callable[[RayScenes, RayCameras], RayLayers]
"""Scenes and cameras -> pictures, ids, depths."""


def best_caster(device: torch.device, samples: int = 1) -> tuple[Caster, str]:
    """The Triton ray caster on a GPU, the reference elsewhere; and its name.

    `samples` rays a side are cast per pixel.
    """
    from spatial_ttt.scenes import raycast

    if device.type == "cuda":
        return partial(raycast.raycast_triton, samples=samples, num_objects=MAX_OBJECTS), "triton"
    return partial(raycast.raycast, samples=samples), "reference"


def warm_up(caster: Caster, spec: ClipSpec, device: torch.device) -> None:
    """Draw one small thing, so that kernels are compiled before they are waited for."""
    record = np.ones((1, RECORD_SIZE), np.float32)
    poses = np.tile(np.eye(4, dtype=np.float32)[:3], (spec.num_frames, 1, 1))
    lens = (spec.width / 2, spec.width / 2, spec.width / 2, spec.height / 2)
    home = Filmed(0, record, poses, lens, np.zeros(MAX_OBJECTS, np.uint8))
    caster(*on_device([home], spec, device))


class Drawn(NamedTuple):
    """Pictures are in the ring at `places`; `pixels` may still be on its way."""

    places: list[int]
    pixels: Tensor  # int32 [B, T, 256] on the host
    done: Any  # torch.cuda.Event | None

    @property
    def has_arrived(self) -> bool:
        """The pixel counts may be read."""
        return self.done is None or bool(self.done.query())


@torch.no_grad()
def draw(caster: Caster, filmed: Sequence[Filmed], ring: ClipRing) -> Drawn:
    """Draw clips into reserved places of a ring, all in one call of the ray caster."""
    device = ring.device
    layers = caster(*on_device(filmed, ring.spec, device))
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
    if device.type != "cuda":
        return Drawn(places, pixels, None)
    host = torch.empty(pixels.shape, dtype=pixels.dtype, pin_memory=True)
    host.copy_(pixels, non_blocking=True)
    done = torch.cuda.Event()
    done.record()
    return Drawn(places, host, done)


def on_device(
    filmed: Sequence[Filmed], spec: ClipSpec, device: torch.device
) -> tuple[RayScenes, RayCameras]:
    """Scenes padded to the same number of parts, and their cameras."""
    sizes = [len(item.records) for item in filmed]
    longest = -(-max(sizes) // PART_STEP) * PART_STEP
    records = np.zeros((len(filmed), longest, filmed[0].records.shape[1]), np.float32)
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
