"""The Triton kernels of the ray caster: cull parts per tile of pixels, then cast and shade.

Four launches. `prepare` turns each part, per frame, into the affine map from a pixel's ray to the
part's own unit space, where every solid is a unit box, cylinder or ball and t is depth. `cull`
lists, per tile, the parts whose boxes reach into its frustum. `nearest` walks that list for each
sample with the best hit in registers; `shade` colours the winners with the generated model. The
last two are apart because the walk wants many threads and shading many registers.
"""

# mypy: disallow-untyped-defs=False, disallow-untyped-decorators=False, disallow-incomplete-defs=False
# (Triton reads kernel arguments as pointers and blocks; there is no type to write.)

from __future__ import annotations

import linecache
from typing import Any

import triton
import triton.language as tl

from spatial_ttt.scenes.shading_code import shade_triton


def _compiled_shade() -> Any:
    """The shading model as a Triton function; Triton wants its source, so it gets a page to read."""
    source, name = shade_triton(), "<spatial_ttt.scenes.shading>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    scope: dict[str, Any] = {"tl": tl, "__name__": __name__}
    exec(compile(source, name, "exec"), scope)
    return triton.jit(scope["shade"])


shade = _compiled_shade()


@triton.jit(do_not_specialize=["first"])
def prepare_kernel(records, poses, maps, first, num_parts, num_frames, BLOCK: tl.constexpr):
    """maps[n, p] = o, x, y, z, kind: a ray of slopes a, b is o + t (a x + b y + z) to part p."""
    local_frame = tl.program_id(0).to(tl.int64)
    frame = first + local_frame
    part = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = part < num_parts
    record = records + ((frame // num_frames) * num_parts + part) * 32
    pose = poses + frame * 12
    out = maps + (local_frame * num_parts + part) * 16
    ox = tl.load(pose + 3) - tl.load(record + 0, mask, 0.0)
    oy = tl.load(pose + 7) - tl.load(record + 1, mask, 0.0)
    oz = tl.load(pose + 11) - tl.load(record + 2, mask, 0.0)
    for axis in tl.static_range(3):
        ax = tl.load(record + 8 + 4 * axis, mask, 0.0)
        ay = tl.load(record + 9 + 4 * axis, mask, 0.0)
        az = tl.load(record + 10 + 4 * axis, mask, 0.0)
        scale = 1.0 / tl.load(record + 4 + axis, mask, 1.0)
        tl.store(out + axis, (ox * ax + oy * ay + oz * az) * scale, mask)
        for column in tl.static_range(3):
            dot = ax * tl.load(pose + column) + ay * tl.load(pose + 4 + column)
            dot += az * tl.load(pose + 8 + column)
            tl.store(out + 3 + 3 * column + axis, dot * scale, mask)
    tl.store(out + 12, tl.load(record + 3, mask, 0.0), mask)


@triton.jit
def _reach(nx, ny, nz, record, pose, mask):
    """How far a part's box reaches to the inner side of the plane through the eye with normal n."""
    # The plane's normal in the world.
    wx = tl.load(pose + 0) * nx + tl.load(pose + 1) * ny + tl.load(pose + 2) * nz
    wy = tl.load(pose + 4) * nx + tl.load(pose + 5) * ny + tl.load(pose + 6) * nz
    wz = tl.load(pose + 8) * nx + tl.load(pose + 9) * ny + tl.load(pose + 10) * nz
    level = wx * (tl.load(record + 0, mask, 0.0) - tl.load(pose + 3))
    level += wy * (tl.load(record + 1, mask, 0.0) - tl.load(pose + 7))
    level += wz * (tl.load(record + 2, mask, 0.0) - tl.load(pose + 11))
    for axis in tl.static_range(3):
        span = wx * tl.load(record + 8 + 4 * axis, mask, 0.0)
        span += wy * tl.load(record + 9 + 4 * axis, mask, 0.0)
        span += wz * tl.load(record + 10 + 4 * axis, mask, 0.0)
        level += tl.abs(span) * tl.load(record + 4 + axis, mask, 0.0)
    return level


@triton.jit(do_not_specialize=["first"])
def cull_kernel(
    records, counts, poses, lenses, lists, lengths,
    first, num_parts, num_frames, tiles_x, near,
    TILE_W: tl.constexpr, TILE_H: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """lists[n, tile, :lengths[n, tile]] = parts whose boxes may reach into the tile's frustum."""
    local_frame = tl.program_id(0).to(tl.int64)
    frame, tile = first + local_frame, tl.program_id(1)
    scene = frame // num_frames
    pose, lens = poses + frame * 12, lenses + scene * 4
    fx, fy = tl.load(lens), tl.load(lens + 1)
    cx, cy = tl.load(lens + 2), tl.load(lens + 3)
    left = ((tile % tiles_x) * TILE_W - cx) / fx
    top = ((tile // tiles_x) * TILE_H - cy) / fy
    right, bottom = left + TILE_W / fx, top + TILE_H / fy
    count = tl.load(counts + scene)
    slot = local_frame * tl.num_programs(1) + tile
    out = lists + slot * num_parts
    length = 0
    start = 0
    while start < count:  # `range` over a loaded number is more than the interpreter can do
        part = start + tl.arange(0, BLOCK)
        mask = part < count
        record = records + (scene * num_parts + part) * 32
        seen = mask & (_reach(0.0, 0.0, 1.0, record, pose, mask) > near)
        seen = seen & (_reach(1.0, 0.0, -left, record, pose, mask) > 0.0)
        seen = seen & (_reach(-1.0, 0.0, right, record, pose, mask) > 0.0)
        seen = seen & (_reach(0.0, 1.0, -top, record, pose, mask) > 0.0)
        seen = seen & (_reach(0.0, -1.0, bottom, record, pose, mask) > 0.0)
        place = tl.cumsum(seen.to(tl.int32), 0)
        tl.store(out + length + place - 1, part, seen)
        length += tl.sum(seen.to(tl.int32), 0)
        start += BLOCK
    tl.store(lengths + slot, length)


@triton.jit
def _slab(o, d):
    """Where o + t d enters and leaves -1..1."""
    inverse = 1.0 / tl.where(d == 0.0, 1e-12, d)
    middle, reach = -o * inverse, tl.abs(inverse)
    return middle - reach, middle + reach


@triton.jit
def _nearest(maps, listed, length, slope_x, slope_y, near):
    """Number of the nearest part that each ray enters, -1 where there is none."""
    best = tl.full(slope_x.shape, 3.0e38, tl.float32)
    winner = tl.full(slope_x.shape, -1, tl.int32)
    index = 0
    while index < length:
        part = tl.load(listed + index)
        row = maps + part.to(tl.int64) * 16
        kind = tl.load(row + 12)
        ox, oy, oz = tl.load(row), tl.load(row + 1), tl.load(row + 2)
        dx = slope_x * tl.load(row + 3) + (slope_y * tl.load(row + 6) + tl.load(row + 9))
        dy = slope_x * tl.load(row + 4) + (slope_y * tl.load(row + 7) + tl.load(row + 10))
        dz = slope_x * tl.load(row + 5) + (slope_y * tl.load(row + 8) + tl.load(row + 11))
        if kind < 0.5:
            enter_x, leave_x = _slab(ox, dx)
            enter_y, leave_y = _slab(oy, dy)
            enter_z, leave_z = _slab(oz, dz)
            t = tl.maximum(tl.maximum(enter_x, enter_y), enter_z)
            end = tl.minimum(tl.minimum(leave_x, leave_y), leave_z)
        elif kind < 1.5:
            a = tl.maximum(dx * dx + dy * dy, 1e-20)
            along = -(ox * dx + oy * dy) / a
            nx, ny = ox + along * dx, oy + along * dy
            rest = 1.0 - nx * nx - ny * ny
            root = tl.sqrt(tl.maximum(rest, 0.0) / a)
            enter_z, leave_z = _slab(oz, dz)
            t = tl.maximum(along - root, enter_z)
            end = tl.where(rest >= 0.0, tl.minimum(along + root, leave_z), -3.0e38)
        else:
            a = tl.maximum(dx * dx + dy * dy + dz * dz, 1e-20)
            along = -(ox * dx + oy * dy + oz * dz) / a
            nx, ny, nz = ox + along * dx, oy + along * dy, oz + along * dz
            rest = 1.0 - nx * nx - ny * ny - nz * nz
            root = tl.sqrt(tl.maximum(rest, 0.0) / a)
            t = along - root
            end = tl.where(rest >= 0.0, along + root, -3.0e38)
        closer = (t <= end) & (t >= near) & (t < best)
        best = tl.where(closer, t, best)
        winner = tl.where(closer, part, winner)
        index += 1
    return winner


@triton.jit
def _meet(kind, ox, oy, oz, dx, dy, dz):
    """Depth at which each ray meets its own unit solid, and the normal there, not yet of length 1."""
    is_box, ball = kind < 0.5, tl.where(kind > 1.5, 1.0, 0.0)
    enter_x, _ = _slab(ox, dx)
    enter_y, _ = _slab(oy, dy)
    enter_z, _ = _slab(oz, dz)
    wz, vz = ball * oz, ball * dz
    a = tl.maximum(dx * dx + dy * dy + vz * vz, 1e-20)
    along = -(ox * dx + oy * dy + wz * vz) / a
    nx, ny, nz = ox + along * dx, oy + along * dy, wz + along * vz
    rest = 1.0 - nx * nx - ny * ny - nz * nz
    side = along - tl.sqrt(tl.maximum(rest, 0.0) / a)
    side = tl.where(is_box, tl.maximum(enter_x, enter_y), side)
    cap = tl.where(ball > 0.5, -3.0e38, enter_z)
    t = tl.maximum(side, cap)
    on_side, on_x = side > cap, enter_x > enter_y
    nx = tl.where(is_box, tl.where(on_x, tl.where(dx > 0.0, -1.0, 1.0), 0.0), ox + t * dx)
    ny = tl.where(is_box, tl.where(on_x, 0.0, tl.where(dy > 0.0, -1.0, 1.0)), oy + t * dy)
    nx, ny = tl.where(on_side, nx, 0.0), tl.where(on_side, ny, 0.0)
    nz = tl.where(on_side, wz + t * vz, tl.where(dz > 0.0, -1.0, 1.0))
    return t, nx, ny, nz


@triton.jit
def _color(record, row, pose, slope_x, slope_y, pixel, mask):
    """sRGB in 0..1, the object id and the depth where each ray meets its part."""
    dx = slope_x * tl.load(row + 3, mask, 0.0) + slope_y * tl.load(row + 6, mask, 0.0)
    dy = slope_x * tl.load(row + 4, mask, 0.0) + slope_y * tl.load(row + 7, mask, 0.0)
    dz = slope_x * tl.load(row + 5, mask, 0.0) + slope_y * tl.load(row + 8, mask, 0.0)
    dx += tl.load(row + 9, mask, 0.0)
    dy += tl.load(row + 10, mask, 0.0)
    dz += tl.load(row + 11, mask, 1.0)
    ox, oy = tl.load(row, mask, 0.0), tl.load(row + 1, mask, 0.0)
    oz = tl.load(row + 2, mask, -2.0)
    t, nx, ny, nz = _meet(tl.load(record + 3, mask, 0.0), ox, oy, oz, dx, dy, dz)
    ux, uy, uz = ox + t * dx, oy + t * dy, oz + t * dz
    hx, hy = tl.load(record + 4, mask, 1.0), tl.load(record + 5, mask, 1.0)
    hz = tl.load(record + 6, mask, 1.0)
    nx, ny, nz = nx / hx, ny / hy, nz / hz
    length = 1.0 / tl.sqrt(tl.maximum(nx * nx + ny * ny + nz * nz, 1e-20))
    nx, ny, nz = nx * length, ny * length, nz * length
    lx = tl.minimum(tl.maximum(ux, -1.0), 1.0) * hx
    ly = tl.minimum(tl.maximum(uy, -1.0), 1.0) * hy
    lz = tl.minimum(tl.maximum(uz, -1.0), 1.0) * hz
    ax, ay = tl.load(record + 8, mask, 0.0), tl.load(record + 9, mask, 0.0)
    az, bx = tl.load(record + 10, mask, 0.0), tl.load(record + 12, mask, 0.0)
    by, bz = tl.load(record + 13, mask, 0.0), tl.load(record + 14, mask, 0.0)
    cx, cy = tl.load(record + 16, mask, 0.0), tl.load(record + 17, mask, 0.0)
    cz = tl.load(record + 18, mask, 0.0)
    px = tl.load(pose) * slope_x + tl.load(pose + 1) * slope_y + tl.load(pose + 2)
    py = tl.load(pose + 4) * slope_x + tl.load(pose + 5) * slope_y + tl.load(pose + 6)
    pz = tl.load(pose + 8) * slope_x + tl.load(pose + 9) * slope_y + tl.load(pose + 10)
    object_id = tl.load(record + 7, mask, 0.0)
    red, green, blue = shade(
        lx, ly, lz, nx, ny, nz,
        tl.load(pose + 3) + t * px, tl.load(pose + 7) + t * py, tl.load(pose + 11) + t * pz,
        nx * ax + ny * bx + nz * cx, nx * ay + ny * by + nz * cy, nx * az + ny * bz + nz * cz,
        tl.maximum(t, 1e-3) * pixel, hx, hy, hz,
        tl.load(record + 20, mask, 0.0), tl.load(record + 21, mask, 0.0),
        tl.load(record + 22, mask, 0.0), object_id,
        tl.load(record + 11, mask, 1.0), tl.load(record + 15, mask, 1.0),
        tl.load(record + 19, mask, 0.0), tl.load(record + 23, mask, 0.0),
        tl.load(record + 24, mask, 0.0), tl.load(record + 25, mask, 1.0),
        tl.load(record + 26, mask, 1.0), tl.load(record + 27, mask, 0.0),
        tl.load(record + 28, mask, 0.0), tl.load(record + 29, mask, 0.0),
        tl.load(record + 30, mask, 0.0), tl.load(record + 31, mask, 0.0),
    )  # fmt: skip
    return red, green, blue, object_id, t


@triton.jit
def _pixels(tile, tiles_x, TILE_W: tl.constexpr, TILE_H: tl.constexpr):
    """Column and row of each pixel of a tile."""
    lane = tl.arange(0, TILE_W * TILE_H)
    return (tile % tiles_x) * TILE_W + lane % TILE_W, (tile // tiles_x) * TILE_H + lane // TILE_W


@triton.jit(do_not_specialize=["first"])
def nearest_kernel(
    maps, lenses, lists, lengths, winners,
    first, num_parts, num_frames, tiles_x, near,
    TILE_W: tl.constexpr, TILE_H: tl.constexpr, SAMPLES: tl.constexpr,
):  # fmt: skip
    """winners[n, tile, pixel, sample] = part that the ray enters first, -1: none."""
    local_frame, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    lens = lenses + ((first + local_frame) // num_frames) * 4
    slot = local_frame * tl.num_programs(1) + tile
    x, y = _pixels(tile, tiles_x, TILE_W, TILE_H)
    sample = tl.arange(0, SAMPLES * SAMPLES)[None, :]
    slope_x = (x[:, None] + (sample % SAMPLES + 0.5) / SAMPLES - tl.load(lens + 2)) / tl.load(lens)
    slope_y = y[:, None] + (sample // SAMPLES + 0.5) / SAMPLES
    slope_y = (slope_y - tl.load(lens + 3)) / tl.load(lens + 1)
    frame_maps, listed = maps + local_frame * num_parts * 16, lists + slot * num_parts
    winner = _nearest(frame_maps, listed, tl.load(lengths + slot), slope_x, slope_y, near)
    lane = tl.arange(0, TILE_W * TILE_H)[:, None] * (SAMPLES * SAMPLES) + sample
    tl.store(winners + slot * (TILE_W * TILE_H * SAMPLES * SAMPLES) + lane, winner)


@triton.jit(do_not_specialize=["first"])
def shade_kernel(
    records, poses, lenses, maps, winners, rgb, ids, depths, pixels,
    first, num_parts, num_frames, num_objects, width, height, tiles_x,
    sky_red, sky_green, sky_blue,
    TILE_W: tl.constexpr, TILE_H: tl.constexpr, SAMPLES: tl.constexpr, COUNT: tl.constexpr,
):  # fmt: skip
    """Colours, ids and depths of one tile of one frame."""
    local_frame, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    frame = first + local_frame
    scene = frame // num_frames
    lens, pose = lenses + scene * 4, poses + frame * 12
    fx, fy = tl.load(lens), tl.load(lens + 1)
    cx, cy = tl.load(lens + 2), tl.load(lens + 3)
    x, y = _pixels(tile, tiles_x, TILE_W, TILE_H)
    sample = tl.arange(0, SAMPLES * SAMPLES)[None, :]
    lane = tl.arange(0, TILE_W * TILE_H)[:, None] * (SAMPLES * SAMPLES) + sample
    slot = local_frame * tl.num_programs(1) + tile
    winner = tl.load(winners + slot * (TILE_W * TILE_H * SAMPLES * SAMPLES) + lane)
    # A pixel all of one part is shaded in its middle.
    same = (tl.min(winner, 1) == tl.max(winner, 1))[:, None]
    slope_x = x[:, None] + tl.where(same, 0.5, (sample % SAMPLES + 0.5) / SAMPLES)
    slope_y = y[:, None] + tl.where(same, 0.5, (sample // SAMPLES + 0.5) / SAMPLES)
    slope_x, slope_y = (slope_x - cx) / fx, (slope_y - cy) / fy
    hit = winner >= 0
    record = records + scene * num_parts * 32 + winner * 32
    row = maps + local_frame * num_parts * 16 + winner * 16
    red, green, blue, number, t = _color(record, row, pose, slope_x, slope_y, 1.0 / fx, hit)
    scale: tl.constexpr = 255.0 / (SAMPLES * SAMPLES)
    red = tl.sum(tl.where(hit, red, sky_red), 1) * scale
    green = tl.sum(tl.where(hit, green, sky_green), 1) * scale
    blue = tl.sum(tl.where(hit, blue, sky_blue), 1) * scale
    middle = hit & (sample == (SAMPLES // 2) * SAMPLES + SAMPLES // 2)
    depth = tl.sum(tl.where(middle, t, 0.0), 1)
    object_id = tl.sum(tl.where(middle, number, 0.0), 1).to(tl.int32)

    inside = (x < width) & (y < height)
    pixel = frame * height * width + y * width + x
    tl.store(rgb + pixel * 3, (red + 0.5).to(tl.uint8), inside)
    tl.store(rgb + pixel * 3 + 1, (green + 0.5).to(tl.uint8), inside)
    tl.store(rgb + pixel * 3 + 2, (blue + 0.5).to(tl.uint8), inside)
    tl.store(ids + pixel, object_id.to(ids.dtype.element_ty), inside)
    tl.store(depths + pixel, depth.to(depths.dtype.element_ty), inside)
    if COUNT:
        counted = inside & (object_id < num_objects)
        tl.atomic_add(pixels + frame * num_objects + object_id, 1, counted)
