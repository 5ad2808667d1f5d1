"""How many frames a second the OpenGL renderer and the ray caster draw of furnished homes.

    python benchmarks/renderer.py [--out FILE] [--quick] [--sweep]

OpenGL runs on what EGL offers (llvmpipe without a graphics card), the ray caster on CUDA if there is
any, after a check against the torch reference. All outputs are made and delivered: OpenGL's in host
memory, the ray caster's in GPU memory. `core_ms` is processor time per frame over all threads, which
other work on the machine disturbs less than `fps`. `--sweep` also times the kernels' launch settings.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a plain checkout

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes import raycast as caster
from spatial_ttt.scenes.homes import Home, make_home
from spatial_ttt.scenes.scene import Camera
from spatial_ttt.scenes.walk import walk

SIZES = ((480, 352), (192, 144), (128, 96))
Line = dict[str, Any]


def filmed_homes(count: int, frames: int) -> list[tuple[Home, Camera]]:
    """Homes of three rooms, some 300 parts each, and a walk of so many frames through each."""
    homes = [make_home(seed, num_rooms=3) for seed in range(count)]
    return [(home, walk(home, seed, fps=4.0, num_frames=frames)) for seed, home in enumerate(homes)]


def time_opengl(size: tuple[int, int], samples: int, quick: bool) -> Line:
    """Frames a second of `Renderer.render`, over homes, parts uploaded once per home."""
    pixels = size[0] * size[1] * samples**2
    frames = int(min(400, max(24, (5e6 if quick else 4e7) // pixels)))
    try:
        from spatial_ttt.scenes.renderer import Renderer

        Renderer(8, 8).close()
    except (ImportError, SceneError) as error:
        return {"what": "opengl", "size": list(size), "skipped": str(error)}
    films = filmed_homes(2 if quick else 4, frames)
    rates, cores = [], []
    with Renderer(*size, samples) as drawn:
        drawn.render(films[0][0].parts, films[0][1], [0])
        for home, camera in films:
            clock, process = time.perf_counter(), time.process_time()
            drawn.render(home.parts, camera)
            rates.append(frames / (time.perf_counter() - clock))
            cores.append(1e3 * (time.process_time() - process) / frames)
        device = drawn.device
    return {
        "what": "opengl",
        "device_gl": device,
        "size": list(size),
        "samples": samples,
        "frames": frames,
        "parts": int(np.mean([len(home.parts.kind) for home, _ in films])),
        "fps": round(statistics.median(rates), 1),
        "core_ms": round(statistics.median(cores), 3),
    }


def cuda_batch(
    size: tuple[int, int], homes: int, frames: int
) -> tuple[caster.RayScenes, caster.RayCameras]:
    """Homes and their walks on the GPU."""
    films = filmed_homes(homes, frames)
    scenes = caster.pack_scenes([home.parts for home, _ in films], "cuda")
    return scenes, caster.pack_cameras([camera for _, camera in films], size, device="cuda")


def check_on_cuda() -> Line:
    """How far the kernels are from the reference on two frames of two homes."""
    scenes, cameras = cuda_batch((128, 96), 2, 2)
    wanted = caster.raycast(scenes, cameras, 1, torch.float64)
    actual = caster.raycast_triton(scenes, cameras)
    agree = actual.object_id == wanted.object_id
    color = (actual.rgb.int() - wanted.rgb.int()).abs().amax(-1)[agree]
    depth = ((actual.depth - wanted.depth).abs() / wanted.depth.clamp(min=0.05))[agree]
    return {
        "what": "raycast check",
        "ids_differ": round(1.0 - agree.double().mean().item(), 6),
        "depth_differs": round((depth > 1e-4).double().mean().item(), 6),
        "color_differs": round((color > 2).double().mean().item(), 6),
    }


def median_seconds(run: Callable[[], object], repeats: int = 7) -> float:
    """Median time on the GPU, after two runs to compile and warm up."""
    times = []
    for index in range(repeats + 2):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        if index >= 2:
            times.append(start.elapsed_time(end) * 1e-3)
    return statistics.median(times)


def time_cuda(size: tuple[int, int], samples: int, quick: bool, lean: bool) -> Line:
    """Frames a second of `raycast_triton`; lean: 16-bit ids and depths."""
    homes = 4 if quick else 16
    frames = int(max(8, (1e7 if quick else 1e8) // (homes * size[0] * size[1])))
    scenes, cameras = cuda_batch(size, homes, frames)
    dtypes = (torch.int16, torch.float16) if lean else (torch.int32, torch.float32)
    seconds = median_seconds(
        lambda: caster.raycast_triton(scenes, cameras, samples, dtypes=dtypes, num_objects=0)
    )
    return {
        "what": "raycast_triton",
        "size": list(size),
        "samples": samples,
        "frames": homes * frames,
        "parts": int(scenes.counts.float().mean()),
        "dtypes": [str(dtype) for dtype in dtypes],
        "warps": [caster.NEAREST_WARPS, caster.SHADE_WARPS],
        "fps": round(homes * frames / seconds),
    }


def measure(quick: bool, sweep: bool) -> list[Line]:
    """All lines, printed as they come."""
    jobs: list[Callable[[], Line]] = [
        lambda size=size, samples=samples: time_opengl(size, samples, quick)
        for size, samples in itertools.product(SIZES, (1, 2))
    ]
    if torch.cuda.is_available():
        jobs.append(check_on_cuda)
        for size, samples, lean in itertools.product(SIZES, (1, 2), (False, True)):
            jobs.append(
                lambda size=size, samples=samples, lean=lean: time_cuda(size, samples, quick, lean)
            )
    lines = []
    for job in jobs:
        lines.append(job())
        print(lines[-1], flush=True)
    if sweep and torch.cuda.is_available():
        standard = caster.NEAREST_WARPS, caster.SHADE_WARPS
        for warps in itertools.product((1, 2, 4, 8), (4, 8)):
            caster.NEAREST_WARPS, caster.SHADE_WARPS = warps
            lines.append(time_cuda((128, 96), 1, quick, lean=True))
            print(lines[-1], flush=True)
        caster.NEAREST_WARPS, caster.SHADE_WARPS = standard
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=record.RESULTS / "renderer.jsonl")
    parser.add_argument("--quick", action="store_true", help="few frames, for a look")
    parser.add_argument("--sweep", action="store_true", help="also try launch settings on CUDA")
    arguments = parser.parse_args()
    lines = measure(arguments.quick, arguments.sweep)
    machine = record.machine()
    machine["load"] = round(os.getloadavg()[0], 1)  # other work on the machine
    record.append(arguments.out, [{**machine, **line} for line in lines])


if __name__ == "__main__":
    main()
