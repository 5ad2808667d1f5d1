"""The renderer again as a ray caster in torch, for many scenes at once, on any device.

`raycast` is the plain reference: every ray against every part. It checks the OpenGL renderer and
`raycast_triton`, which computes the same straight into GPU memory, fast enough to train from.
Nothing else in `scenes` imports this module, so scenes stay free of torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from spatial_ttt.errors import ConfigError, SceneError
from spatial_ttt.scenes.scene import Camera, PartKind, Parts
from spatial_ttt.scenes.shading import BACKGROUND, RECORD_SIZE, Surface, Vec3, pack_parts, shade
from spatial_ttt.scenes.views import NEAR, pack_views

RAYS_PER_CHUNK = 4096
"""Rays the reference casts at once; with 300 parts some 50 MB of intermediate values."""
SCRATCH_BYTES = 256 << 20
"""Device memory for what the kernels pass on: part maps, lists of parts per tile, winners."""
NEAREST_WARPS, SHADE_WARPS = 2, 8
"""Warps per tile of 256 rays. The walk takes four rays a thread: each loads a part once for four."""


@dataclass(frozen=True, slots=True)
class RayScenes:
    """B scenes, padded to the same number of parts P."""

    records: Tensor  # float32 [B, P, 32], see shading.pack_parts
    counts: Tensor  # int32 [B] parts that are real


@dataclass(frozen=True, slots=True)
class RayCameras:
    """T frames of each scene's camera, for pictures of width x height pixels."""

    poses: Tensor  # float32 [B, T, 3, 4] camera to world
    lenses: Tensor  # float32 [B, 4] focal lengths and principal point, pixels
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class RayLayers:
    """What the cameras saw."""

    rgb: Tensor  # uint8 [B, T, H, W, 3] sRGB
    object_id: Tensor  # int32 or int16 [B, T, H, W]; 0 is the building, or nothing
    depth: Tensor  # float32 or float16 [B, T, H, W] m along the camera's z; 0 where nothing was hit
    pixels: Tensor | None = None  # int32 [B, T, O] pixels of object 0 .. O - 1


def pack_scenes(scenes: Sequence[Parts], device: torch.device | str = "cpu") -> RayScenes:
    """Scenes as one padded batch on a device."""
    records = [pack_parts(parts) for parts in scenes]
    padded = np.ones((len(records), max(map(len, records)), RECORD_SIZE), np.float32)
    for index, record in enumerate(records):
        padded[index, : len(record)] = record
    counts = torch.tensor([len(record) for record in records], dtype=torch.int32)
    return RayScenes(torch.from_numpy(padded).to(device), counts.to(device))


def pack_cameras(
    cameras: Sequence[Camera],
    size: tuple[int, int],
    frames: slice | Sequence[int] | None = None,
    device: torch.device | str = "cpu",
) -> RayCameras:
    """The chosen frames of one camera per scene, for pictures of size (width, height)."""
    views = [pack_views(camera, frames, *size) for camera in cameras]
    if len({view.count for view in views}) != 1:
        raise SceneError(
            f"cameras of a batch need equally many frames, got {[view.count for view in views]}; "
            "choose them with `frames`"
        )
    poses = torch.from_numpy(np.stack([view.texels[:, 3:] for view in views]))
    lenses = torch.tensor([view.lens for view in views], dtype=torch.float32)
    return RayCameras(poses.to(device), lenses.to(device), *size)


def raycast(
    scenes: RayScenes, cameras: RayCameras, samples: int = 1, dtype: torch.dtype = torch.float32
) -> RayLayers:
    """The reference: every ray meets every part, in `dtype`. Slow; for checks and small pictures."""
    batch, frames = cameras.poses.shape[:2]
    shape = (batch, frames, cameras.height, cameras.width)
    device = scenes.records.device
    rgb = torch.empty(*shape, 3, dtype=torch.uint8, device=device)
    ids = torch.empty(shape, dtype=torch.int32, device=device)
    depth = torch.empty(shape, dtype=torch.float32, device=device)
    for b in range(batch):
        record = scenes.records[b, : int(scenes.counts[b])].to(dtype)
        lens = cameras.lenses[b].to(dtype) * samples
        for t in range(frames):
            pose = cameras.poses[b, t].to(dtype)
            picture = _cast_frame(record, pose, lens, cameras, samples)
            rgb[b, t], ids[b, t], depth[b, t] = picture
    return RayLayers(rgb, ids, depth)


def _cast_frame(
    record: Tensor, pose: Tensor, lens: Tensor, cameras: RayCameras, samples: int
) -> tuple[Tensor, Tensor, Tensor]:
    """One picture: uint8 [H, W, 3], int32 [H, W], [H, W]."""
    height, width = cameras.height * samples, cameras.width * samples
    color, part, depth = _cast_grid(record, pose, lens, (height, width), samples)
    cells = part.reshape(cameras.height, samples, cameras.width, samples)
    same = (cells == cells[:, :1, :, :1]).all(3).all(1)
    color = color.reshape(cameras.height, samples, cameras.width, samples, 3).mean((1, 3))
    middle = (slice(samples // 2, None, samples),) * 2
    part, depth = part[middle], depth[middle]
    if samples > 1:  # a pixel all of one part is shaded once, in its middle
        size = (cameras.height, cameras.width)
        plain, seen, far = _cast_grid(record, pose, lens / samples, size, 1)
        same &= seen == part
        color, depth = torch.where(same[..., None], plain, color), torch.where(same, far, depth)
    ids = torch.where(part >= 0, record[part.clamp(min=0), 7].to(torch.int32), 0)
    return (color * 255.0 + 0.5).to(torch.uint8), ids, depth


def _cast_grid(
    record: Tensor, pose: Tensor, lens: Tensor, size: tuple[int, int], samples: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Colour [h, w, 3], part [h, w] (-1: nothing) and depth [h, w] of a grid of (h, w) rays."""
    height, width = size
    x = torch.arange(width, dtype=record.dtype, device=record.device) + 0.5
    y = torch.arange(height, dtype=record.dtype, device=record.device) + 0.5
    slopes = (y - lens[3]) / lens[1], (x - lens[2]) / lens[0]
    slope_y, slope_x = torch.meshgrid(*slopes, indexing="ij")
    rays = torch.stack([slope_x, slope_y, torch.ones_like(slope_x)], -1).reshape(-1, 3)
    pixel = samples / lens[0]
    chunks = [_cast(record, pose, chunk, pixel) for chunk in rays.split(RAYS_PER_CHUNK)]
    color, part, depth = (torch.cat(column) for column in zip(*chunks, strict=True))
    return color.reshape(*size, 3), part.reshape(size), depth.reshape(size)


def _cast(
    record: Tensor, pose: Tensor, rays: Tensor, pixel: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """sRGB [R, 3] in 0..1, part [R] and depth [R] of rays [R, 3] in camera axes with z = 1."""
    axes = torch.stack([record[:, 8:11], record[:, 12:15], record[:, 16:19]], 1)  # [P, axis, xyz]
    world_rays = rays @ pose[:, :3].T
    origin = torch.einsum("pij,pj->pi", axes, pose[:, 3] - record[:, :3]) / record[:, 4:7]
    direction = torch.einsum("pij,rj->rpi", axes, world_rays) / record[:, 4:7]
    depth, normal = _meet(record[:, 3], origin, direction)
    depth, part = depth.min(1)
    hit = torch.isfinite(depth)
    depth = torch.where(hit, depth, 1.0)
    chosen = record[part]
    rows = torch.arange(len(rays), device=rays.device)
    normal = normal[rows, part] / chosen[:, 4:7]
    normal = normal / normal.norm(dim=1, keepdim=True).clamp(min=1e-12)
    local = origin[part] + depth[:, None] * direction[rows, part]
    world = pose[:, 3] + depth[:, None] * world_rays
    up = torch.einsum("rij,ri->rj", axes[part], normal)
    surface = Surface(
        _vector(local.clamp(-1.0, 1.0) * chosen[:, 4:7]),
        _vector(normal),
        _vector(world),
        _vector(up),
        depth * pixel,
        _vector(chosen[:, 4:7]),
        _vector(chosen[:, 20:23]),
        chosen[:, 7],
        tuple(chosen[:, column] for column in (11, 15, 19, *range(23, 32))),
    )
    color = torch.stack(list(shade(surface, _TorchOps())), 1)
    sky = torch.tensor(BACKGROUND, dtype=color.dtype, device=color.device) / 255.0
    color = torch.where(hit[:, None], color, sky)
    return color, torch.where(hit, part, -1), torch.where(hit, depth, 0.0)


def _meet(kind: Tensor, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Depth [R, P], inf where the ray passes by, and normal [R, P, 3] in each part's unit space."""
    depth = torch.full(direction.shape[:2], torch.inf, dtype=origin.dtype, device=origin.device)
    normal = torch.zeros_like(direction)
    for solid, meet in (
        (PartKind.BOX, _meet_box),
        (PartKind.CYLINDER, _meet_cylinder),
        (PartKind.ELLIPSOID, _meet_ball),
    ):
        index = torch.nonzero(kind == int(solid)).squeeze(1)
        if len(index):
            met, t, n = meet(origin[index], direction[:, index])
            depth[:, index] = torch.where(met & (t >= NEAR), t, torch.inf)
            normal[:, index] = n
    return depth, normal


def _meet_box(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    inverse = 1.0 / torch.where(d == 0.0, 1e-12, d)
    first, second = (-1.0 - o) * inverse, (1.0 - o) * inverse
    enter, axis = torch.minimum(first, second).max(-1)
    leave = torch.maximum(first, second).amin(-1)
    normal = -torch.sign(d) * torch.nn.functional.one_hot(axis, 3)
    return enter <= leave, enter, normal


def _meet_cylinder(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    side, leave_side, met = _meet_circle(o[:, :2], d[..., :2])
    inverse = 1.0 / torch.where(d[..., 2] == 0.0, 1e-12, d[..., 2])
    low, high = (-1.0 - o[:, 2]) * inverse, (1.0 - o[:, 2]) * inverse
    cap, leave_cap = torch.minimum(low, high), torch.maximum(low, high)
    t = torch.maximum(side, cap)
    round_ = torch.cat([o[:, :2] + t[..., None] * d[..., :2], torch.zeros_like(t)[..., None]], -1)
    flat = torch.zeros_like(d)
    flat[..., 2] = -torch.sign(d[..., 2])
    normal = torch.where((side > cap)[..., None], round_, flat)
    return met & (t <= torch.minimum(leave_side, leave_cap)), t, normal


def _meet_ball(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    t, _, met = _meet_circle(o, d)
    return met, t, o + t[..., None] * d


def _meet_circle(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where |o + t d| = 1, in any number of dimensions: first and second t, and whether at all."""
    a = (d * d).sum(-1).clamp(min=1e-20)
    along = -(o * d).sum(-1) / a
    nearest = o + along[..., None] * d
    rest = 1.0 - (nearest * nearest).sum(-1)
    root = (rest.clamp(min=0.0) / a).sqrt()
    return along - root, along + root, rest >= 0.0


def _vector(columns: Tensor) -> Vec3:
    return Vec3(*columns.unbind(1))


class _TorchOps:
    """The functions of `shading.Ops` on tensors."""

    def where(self, condition: Tensor, yes: Tensor | float, no: Tensor | float) -> Tensor:
        return torch.where(condition, yes, no)

    def floor(self, x: Tensor) -> Tensor:
        return torch.floor(x)

    def sqrt(self, x: Tensor) -> Tensor:
        return torch.sqrt(x)

    def abs(self, x: Tensor) -> Tensor:
        return torch.abs(x)

    def minimum(self, a: Tensor, b: Tensor | float) -> Tensor:
        return torch.minimum(a, b) if isinstance(b, Tensor) else a.clamp(max=b)

    def maximum(self, a: Tensor, b: Tensor | float) -> Tensor:
        return torch.maximum(a, b) if isinstance(b, Tensor) else a.clamp(min=b)


def raycast_triton(
    scenes: RayScenes,
    cameras: RayCameras,
    samples: int = 1,
    num_objects: int = 0,
    dtypes: tuple[torch.dtype, torch.dtype] = (torch.int32, torch.float32),
) -> RayLayers:
    """`raycast` as Triton kernels; the results stay on the device of the inputs.

    `num_objects` O > 0 also counts the pixels of objects 0 .. O - 1. `dtypes` are those of object_id
    (int32 or int16) and depth (float32 or float16). Needs a CUDA device, or TRITON_INTERPRET=1.
    """
    if samples not in (1, 2, 4):
        raise ConfigError(f"raycast_triton takes 1, 2 or 4 samples a side, got {samples}")
    batch, frames = cameras.poses.shape[:2]
    if len(scenes.records) != batch:
        raise ConfigError(f"got {len(scenes.records)} scenes and {batch} cameras, want as many")
    records, poses = scenes.records.contiguous(), cameras.poses.contiguous()
    shape = (batch, frames, cameras.height, cameras.width)
    layers = RayLayers(
        records.new_empty((*shape, 3), dtype=torch.uint8),
        records.new_empty(shape, dtype=dtypes[0]),
        records.new_empty(shape, dtype=dtypes[1]),
        records.new_zeros((batch, frames, num_objects), dtype=torch.int32) if num_objects else None,
    )
    checked = (RayScenes(records, scenes.counts), replace(cameras, poses=poses))
    on_card = torch.cuda.device(records.device) if records.is_cuda else nullcontext()
    with on_card:
        _launch(*checked, layers, samples)
    return layers


def _launch(scenes: RayScenes, cameras: RayCameras, layers: RayLayers, samples: int) -> None:
    """Runs the kernels over the frames of all scenes, as many at a time as SCRATCH_BYTES allow."""
    from spatial_ttt.scenes import raycast_kernel as kernel

    batch, frames = cameras.poses.shape[:2]
    num_parts, tile = scenes.records.shape[1], 16 // samples
    tiles_x, tiles_y = -(-cameras.width // tile), -(-cameras.height // tile)
    tiles = tiles_x * tiles_y
    tile_samples = (tile * samples) ** 2
    step = max(1, SCRATCH_BYTES // (4 * (tiles * (num_parts + tile_samples) + 16 * num_parts)))
    step = min(step, batch * frames)
    scratch = scenes.records.new_empty
    maps = scratch((step, num_parts, 16))
    lists = scratch((step, tiles, num_parts), dtype=torch.int32)
    lengths = scratch((step, tiles), dtype=torch.int32)
    winners = scratch((step, tiles, tile_samples), dtype=torch.int32)
    num_objects = 0 if layers.pixels is None else layers.pixels.shape[2]
    records, poses, lenses = scenes.records, cameras.poses, cameras.lenses
    sky = [channel / 255.0 for channel in BACKGROUND]
    for first in range(0, batch * frames, step):
        count = min(step, batch * frames - first)
        kernel.prepare_kernel[(count, -(-num_parts // 128))](
            records, poses, maps, first, num_parts, frames, BLOCK=128
        )
        kernel.cull_kernel[(count, tiles)](
            records, scenes.counts, poses, lenses, lists, lengths, first, num_parts, frames,
            tiles_x, NEAR, TILE_W=tile, TILE_H=tile, BLOCK=64, num_warps=2,
        )  # fmt: skip
        kernel.nearest_kernel[(count, tiles)](
            maps, lenses, lists, lengths, winners, first, num_parts, frames, tiles_x, NEAR,
            TILE_W=tile, TILE_H=tile, SAMPLES=samples, num_warps=NEAREST_WARPS,
        )  # fmt: skip
        kernel.shade_kernel[(count, tiles)](
            records, poses, lenses, maps, winners, layers.rgb, layers.object_id, layers.depth,
            lengths if layers.pixels is None else layers.pixels, first, num_parts, frames,
            num_objects, cameras.width, cameras.height, tiles_x, *sky, TILE_W=tile, TILE_H=tile,
            SAMPLES=samples, COUNT=num_objects > 0, num_warps=SHADE_WARPS,
        )  # fmt: skip
